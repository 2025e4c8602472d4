"""Public datasets from a mirror and from a hub."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml
from helpers import ROOT
from hub_server import COMMIT, Hub
from pydantic import ValidationError

from stages.common.errors import UserError
from stages.data.params import DataParams
from stages.data.public import collect
from stages.data.readers import read_table

SECTION = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))["data"]
HELLASWAG = pd.DataFrame(
    {
        "ctx_a": ["A man sits on a roof. [title]", "Two dogs"],
        "ctx_b": ["he", "they run"],
        "activity_label": ["Roofing", "Dogs"],
        "endings": [[f" ending {i}" for i in range(4)], [f" [step] end {i}" for i in range(4)]],
        "label": ["3", "0"],
    }
)
WINOGRANDE = pd.DataFrame(
    {"sentence": ["A saw B so _ fled."] * 2, "option1": "A", "option2": "B", "answer": ["1", "2"]}
)
ALPACA = pd.DataFrame({"instruction": ["Say"] * 200, "input": ["", "this"] * 100, "output": ["word " * 50] * 200})
# Where each lies in the mirror, and where on the hub.
FILES = {
    "Rowan/hellaswag/validation": ("Rowan/hellaswag", "data/validation-00000-of-00001.parquet", HELLASWAG),
    "Rowan/hellaswag/train": ("Rowan/hellaswag", "data/train-00000-of-00001.parquet", HELLASWAG),
    "allenai/winogrande/winogrande_xl/validation": (
        "allenai/winogrande", "winogrande_xl/validation-00000-of-00001.parquet", WINOGRANDE
    ),
    "allenai/winogrande/winogrande_xl/train": (
        "allenai/winogrande", "winogrande_xl/train-00000-of-00001.parquet", WINOGRANDE
    ),
    "wikitext/wikitext-2-raw-v1/test": (
        "Salesforce/wikitext", "wikitext-2-raw-v1/test-0000.parquet", pd.DataFrame({"text": ["", " A line\n"]})
    ),
    "ptb_text_only/penn_treebank/validation": (
        "ptb-text-only/ptb_text_only", "penn_treebank/validation/0000.parquet", pd.DataFrame({"sentence": ["a line"]})
    ),
    "yahma/alpaca-cleaned/train": ("yahma/alpaca-cleaned", "alpaca_data_cleaned.json", ALPACA),
    "org/corpus/train": ("org/corpus", "train.jsonl", pd.DataFrame({"text": [f"line {i} " * 40 for i in range(300)]})),
}  # fmt: skip
# Reads each dataset by our reader and by the datasets client.
BOTH = """
from datasets import load_dataset
from stages.data.datasets import DATASETS, Dataset
from stages.data.readers import hub_reader
read = hub_reader({})
winogrande = Dataset("allenai/winogrande", "winogrande_xl")
for dataset, split in [
    (Dataset("Rowan/hellaswag"), "train"), (winogrande, "train"), (winogrande, "validation"),
    (DATASETS["wikitext2"], "test"), (DATASETS["ptb"], "validation"), (DATASETS["alpaca-cleaned"], "train"),
    (Dataset("org/corpus"), "train"),
]:
    ours = read(dataset, split).table.to_pylist()
    theirs = load_dataset(dataset.repo, dataset.config, split=split, revision=dataset.revision).to_list()
    print("same" if ours == theirs else (dataset, ours[:2], theirs[:2]))
"""
NAMES = {"tasks": ["hellaswag", "winogrande"], "calibration": "org/corpus"}


def params(**changes) -> DataParams:
    return DataParams.model_validate(SECTION | {"source": "mirror", **NAMES, **changes})


@pytest.fixture
def mirror(tmp_path) -> Path:
    for place, (_, _, table) in FILES.items():
        file = tmp_path / "mirror" / f"{place}.parquet"
        file.parent.mkdir(parents=True, exist_ok=True)
        table.to_parquet(file)
    return tmp_path / "mirror"


def content(name: str, table: pd.DataFrame, folder: Path) -> bytes:
    """Return `table` in the format that the name ends with."""
    if name.endswith(".parquet"):
        table.to_parquet(folder / "temporary")
        return (folder / "temporary").read_bytes()
    return table.to_json(orient="records", lines=name.endswith(".jsonl")).encode()


def run(folder: Path, hub: Hub, **changes) -> subprocess.CompletedProcess:
    """Run the stage in `folder`; every request it makes goes to `hub`."""
    (folder / "params.yaml").write_text(yaml.safe_dump({"data": SECTION | NAMES | changes}), encoding="utf-8")
    command = [sys.executable, "-m", "stages.data"]
    return subprocess.run(command, cwd=folder, env=variables(hub, folder), capture_output=True, text=True, check=False)


def variables(hub: Hub, folder: Path) -> dict[str, str]:
    """Return an environment whose hub is `hub`, with its cache in `folder` and no other setting of the client."""
    others = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    return others | {"PYTHONPATH": str(ROOT), "HF_ENDPOINT": hub.url, "HF_HOME": str(folder / "cache")}


def tables(folder: Path) -> dict[str, pd.DataFrame]:
    return {str(file.relative_to(folder)): pd.read_parquet(file) for file in sorted(folder.rglob("*.parquet"))}


@pytest.mark.slow
def test_hub_and_mirror_give_the_same(mirror, tmp_path):
    here, there = tmp_path / "mirrored", tmp_path / "fetched"
    with Hub() as hub:
        for repository, name, table in FILES.values():
            hub.datasets.setdefault(repository, {})[name] = content(name, table, tmp_path)
        for folder, changes in ((there, {"source": "hub"}), (here, {"source": "mirror", "mirror": str(mirror)})):
            folder.mkdir()
            before = len(hub.requests)
            done = run(folder, hub, **changes)
            assert done.returncode == 0, done.stderr
        assert len(hub.requests) == before, "the mirror needs no network"
    ours, theirs = tables(here / "data"), tables(there / "data")
    assert ours.keys() == theirs.keys()
    assert {"tasks/hellaswag.parquet", "tasks/hellaswag.train.parquet", "perplexity/ptb.parquet"} <= ours.keys()
    for name in ours:
        pd.testing.assert_frame_equal(ours[name], theirs[name], check_dtype=False)
    sources = json.loads((there / "data/sources.json").read_text())
    assert {source["revision"] for source in sources} == {COMMIT}
    assert all(len(source["sha256"]) == 64 for source in sources)
    metrics = json.loads((there / "metrics/data.json").read_text())
    assert metrics["hellaswag_questions"] == 2 and metrics["instructions"] == 200


@pytest.mark.slow
def test_the_datasets_client_reads_the_same_rows(tmp_path):
    """The files that we choose by name are those that a repository's own card gives to datasets.load_dataset."""
    cards: dict[str, dict[str, list]] = {}  # repository: config: its files
    with Hub() as hub:
        for place, (repository, name, table) in FILES.items():
            config = {"wikitext": "wikitext-2-raw-v1", "ptb_text_only": "penn_treebank"}.get(place.split("/")[0])
            config = config or ("winogrande_xl" if "winogrande" in place else "default")
            files = cards.setdefault(repository, {}).setdefault(config, [])
            files.append({"split": place.split("/")[-1], "path": name})
            hub.datasets.setdefault(repository, {})[name] = content(name, table, tmp_path)
        for repository, configs in cards.items():
            card = {"configs": [{"config_name": key, "data_files": files} for key, files in configs.items()]}
            hub.datasets[repository]["README.md"] = f"---\n{yaml.safe_dump(card)}---\n".encode()
        command, environment = [sys.executable, "-c", BOTH], variables(hub, tmp_path)
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["same"] * 7, done.stdout


def test_texts_are_kept_as_they_are(mirror):
    collected = collect(params(mirror=str(mirror)))
    assert collected.perplexity == {"wikitext2": ["", " A line\n"], "ptb": ["a line"]}
    assert list(collected.instructions) == ["instruction", "input", "output"]
    joined = "".join(text for part in collected.texts.values() for text in part)
    assert sum(f"line {i} line {i} " in joined for i in range(300)) == 300
    parts = {name: sum(map(len, part)) / len(joined) for name, part in collected.texts.items()}
    assert parts["test"] == pytest.approx(0.15, abs=0.06) and parts["validation"] == pytest.approx(0.05, abs=0.06)
    assert not set(collected.texts["train"]) & set(collected.texts["test"])
    short = collect(params(mirror=str(mirror), characters=20_000))
    assert sum(len(text) for part in short.texts.values() for text in part) == pytest.approx(20_000, rel=0.05)


def test_instructions_can_be_the_text(mirror):
    collected = collect(params(mirror=str(mirror), calibration="alpaca-cleaned"))
    assert collected.texts["train"][0].startswith("Say\nword")
    assert "Say\nthis\nword" in collected.texts["train"][0]


def test_what_is_missing_is_named(mirror, capsys):
    (mirror / "Rowan/hellaswag/validation.parquet").unlink()
    (mirror / "yahma/alpaca-cleaned/train.parquet").unlink()
    lacking = (
        "not in the mirror: hellaswag (Rowan/hellaswag/validation.parquet), "
        "alpaca-cleaned (yahma/alpaca-cleaned/train.parquet)"
    )
    with pytest.raises(UserError) as error:
        collect(params(mirror=str(mirror)))
    assert str(error.value) == f"{lacking}; add it, name other data, or set data.missing: skip"
    collected = collect(params(mirror=str(mirror), missing="skip"))
    assert capsys.readouterr().out == f"data: {lacking}; left out\n"
    assert list(collected.tasks) == ["winogrande"]
    assert collected.instructions.empty and list(collected.instructions) == ["instruction", "input", "output"]
    (mirror / "org/corpus/train.parquet").unlink()
    with pytest.raises(UserError, match=r"data\.calibration = 'org/corpus' cannot be left out"):
        collect(params(mirror=str(mirror), missing="skip"))


def test_few_shot_examples_are_left_out_where_there_are_none(mirror):
    (mirror / "Rowan/hellaswag/train.parquet").unlink()
    tasks = collect(params(mirror=str(mirror))).tasks
    assert tasks["hellaswag"].config["training_split"] is None
    assert tasks["winogrande"].config["training_split"] == "train"


def test_bad_input(mirror, tmp_path):
    with pytest.raises(UserError, match=r"data\.mirror = 'nowhere' is no folder"):
        collect(params(mirror="nowhere"))
    with pytest.raises(ValidationError, match="mirror = None; allowed with source = 'mirror'"):
        params()
    pd.DataFrame({"prompt": ["a"]}).to_parquet(mirror / "org/corpus/train.parquet")
    with pytest.raises(UserError, match=r"org/corpus has no column instruction, input, output; its columns: prompt"):
        collect(params(mirror=str(mirror)))
    (mirror / "org/corpus/train.parquet").write_bytes(b"PAR1 no more")
    with pytest.raises(UserError, match=r"train\.parquet: neither parquet nor JSON rows"):
        collect(params(mirror=str(mirror)))
    (tmp_path / "broken.json").write_text("[{")
    with pytest.raises(UserError, match=r"broken\.json: neither parquet nor JSON rows"):
        read_table([tmp_path / "broken.json"])
