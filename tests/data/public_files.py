"""Public datasets of a few rows each, as they lie on the hub and in a mirror."""

import gzip
import os
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import yaml
from helpers import ROOT
from hub_server import Hub

from stages.data.params import DataParams

SECTION = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))["data"]


class File(NamedTuple):
    """A file on the hub."""

    repository: str
    name: str
    rows: pd.DataFrame
    part: str | None = None  # what it is or belongs to, config/split or split; None: what no name stands for

    @property
    def config(self) -> str:
        """The configuration as the hub calls it."""
        return self.part.rpartition("/")[0] or "default"

    @property
    def split(self) -> str:
        """The split."""
        return self.part.rpartition("/")[2]

    @property
    def mirrored(self) -> str:
        """Where a mirror has the rows; some are called by the name that they had before there were organisations."""
        folder = {"Salesforce/wikitext": "wikitext", "ptb-text-only/ptb_text_only": "ptb_text_only"}
        return f"{folder.get(self.repository, self.repository)}/{self.part}.parquet"


def text(name: str, *lines: int) -> pd.DataFrame:
    """Return lines of text that say whose they are, numbered as `range` does."""
    return pd.DataFrame({"text": [f"{name} {i} " * 40 for i in range(*lines or (40,))]})


CHOICES = [{"text": ["a", "b", "c", "d"], "label": ["A", "B", "C", "D"]}, {"text": ["e", "f"], "label": ["1", "2"]}]
ARC = pd.DataFrame({"id": ["x", "y"], "question": ["Why?", "How?"], "choices": CHOICES, "answerKey": ["C", "1"]})
TASKS = {  # task: repository, config, scored split, rows
    "arc_challenge": ("allenai/ai2_arc", "ARC-Challenge", "test", ARC),
    "arc_easy": ("allenai/ai2_arc", "ARC-Easy", "test", ARC.assign(question=["Easy?", "Hard?"])),
    "boolq": ("aps/super_glue", "boolq", "validation", pd.DataFrame(
        {"question": ["is it", "was it"], "passage": ["It is.", "It was not."], "idx": [0, 1], "label": [1, 0]}
    )),
    "hellaswag": ("Rowan/hellaswag", None, "validation", pd.DataFrame({
        "ctx_a": ["A man sits on a roof. [title]", "Two dogs"],
        "ctx_b": ["he", "they run"],
        "activity_label": ["Roofing", "Dogs"],
        "endings": [[f" ending {i}" for i in range(4)], [f" [step] end {i}" for i in range(4)]],
        "label": ["3", "0"],
    })),
    "openbookqa": ("allenai/openbookqa", "main", "test", ARC.rename(columns={"question": "question_stem"})),
    "piqa": ("baber/piqa", None, "validation", pd.DataFrame(
        {"goal": ["Cut", "Glue"], "sol1": ["knife", "rope"], "sol2": ["spoon", "glue"], "label": [0, 1]}
    )),
    "winogrande": ("allenai/winogrande", "winogrande_xl", "validation", pd.DataFrame(
        {"sentence": ["A saw B so _ fled."] * 2, "option1": "A", "option2": "B", "answer": ["1", "2"]}
    )),
}  # fmt: skip
ALPACA = pd.DataFrame(
    {"instruction": ["Say"] * 200, "input": ["", "this"] * 100, "output": [f"word {i} " * 25 for i in range(200)]}
)
WIKITEXT2 = pd.DataFrame({"text": ["", " A line\n"]})
WIKITEXT, PTB, C4, CORPUS = "Salesforce/wikitext", "ptb-text-only/ptb_text_only", "allenai/c4", "org/corpus"
BOOKS = "bookcorpus/bookcorpus"
OTHER = text("other")
FILES = [
    File(WIKITEXT, "wikitext-2-raw-v1/test-00000-of-00001.parquet", WIKITEXT2, "wikitext-2-raw-v1/test"),
    File(WIKITEXT, "wikitext-2-raw-v1/train-00000-of-00001.parquet", text("wiki"), "wikitext-2-raw-v1/train"),
    File(WIKITEXT, "wikitext-2-v1/test-00000-of-00001.parquet", text("<unk>", 2), "wikitext-2-v1/test"),
    File(WIKITEXT, "wikitext-103-raw-v1/test-00000-of-00001.parquet", OTHER),
    File(
        PTB, "penn_treebank/validation/0000.parquet", pd.DataFrame({"sentence": ["a line"]}), "penn_treebank/validation"
    ),
    File(PTB, "penn_treebank/test/0000.parquet", OTHER),
    File(C4, "en/c4-validation.00000-of-00008.json.gz", text("held out", 2), "en/validation"),
    File(C4, "en/c4-train.00000-of-01024.json.gz", text("c4"), "en/train"),
    File(C4, "en/c4-train.00001-of-01024.json.gz", OTHER),
    File(BOOKS, "plain_text/partial-train/0000.parquet", text("book"), "plain_text/train"),
    File(BOOKS, "plain_text/partial-train/0001.parquet", OTHER),
    File("yahma/alpaca-cleaned", "alpaca_data_cleaned.json", ALPACA, "train"),
    File("yahma/alpaca-cleaned", "alpaca_data.json", ALPACA[:1]),
    File(CORPUS, "data/train-00000-of-00002.parquet", text("line", 160), "train"),
    File(CORPUS, "data/train-00001-of-00002.parquet", text("line", 160, 300), "train"),
    File("org/lines", "train.jsonl", text("jsonl"), "train"),
]
for repository, config, scored, rows in TASKS.values():
    for split, table in ((scored, rows), ("train", rows[::-1].reset_index(drop=True))):
        name = f"{config or 'data'}/{split}-00000-of-00001.parquet"
        FILES.append(File(repository, name, table, f"{config}/{split}" if config else split))


def params(**changes) -> DataParams:
    """Return section `data` for all tasks, sets and texts of FILES, changed by `changes`."""
    names = {
        "tasks": list(TASKS),
        "perplexity": ["wikitext2", "wikitext2_tokenised", "ptb", "c4"],
        "calibration": "wikitext2",
    }
    return DataParams.model_validate(SECTION | {"source": "hub", **names, **changes})


def write_mirror(folder: Path) -> Path:
    """Write the files that a mirror has, and return `folder`."""
    for place in {file.mirrored for file in FILES if file.part}:
        path = folder / place
        path.parent.mkdir(parents=True, exist_ok=True)
        pd.concat([file.rows for file in FILES if file.mirrored == place], ignore_index=True).to_parquet(path)
    return folder


def serve(hub: Hub, folder: Path) -> Hub:
    """Put all files on `hub`; `folder` is for temporary ones."""
    for file in FILES:
        hub.datasets.setdefault(file.repository, {})[file.name] = content(file, folder / "temporary")
    return hub


def content(file: File, temporary: Path) -> bytes:
    """Return the rows in the format that the name ends with."""
    if file.name.endswith(".parquet"):
        file.rows.to_parquet(temporary)
        return temporary.read_bytes()
    text = file.rows.to_json(orient="records", lines=not file.name.endswith(".json")).encode()
    return gzip.compress(text, mtime=0) if file.name.endswith(".gz") else text


def variables(hub: Hub, folder: Path) -> dict[str, str]:
    """Return an environment whose hub is `hub`, with its cache in `folder` and no other setting of the client."""
    others = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    return others | {"PYTHONPATH": str(ROOT), "HF_ENDPOINT": hub.url, "HF_HOME": str(folder / "cache")}
