"""Public datasets by the real client from a hub on 127.0.0.1: each by its name, and what a hub may answer."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import huggingface_hub.constants
import pandas as pd
import pytest
import yaml
from forks import forking_python
from helpers import ROOT
from hub_server import COMMIT, Hub
from public_files import TASKS, params, serve, variables, write_mirror
from stub_project import SWEEP

from stages.common.errors import UserError
from stages.data.__main__ import main
from stages.data.collected import Collected
from stages.data.datasets import DATASETS
from stages.data.public import collect


@pytest.fixture
def hub(tmp_path):
    with Hub() as server:
        yield serve(server, tmp_path)


@pytest.fixture
def settings(hub, tmp_path, monkeypatch):
    """Have the client in this process, which reads its settings once, use `hub` and an empty cache."""
    known = huggingface_hub.constants
    changed = {
        "ENDPOINT": hub.url,
        "HUGGINGFACE_CO_URL_TEMPLATE": known.HUGGINGFACE_CO_URL_TEMPLATE.replace(known.ENDPOINT, hub.url),
        "HF_HUB_CACHE": str(tmp_path / "cache"),
        "HF_HUB_OFFLINE": False,
    }
    change = lambda **values: [monkeypatch.setattr(known, *value) for value in values.items()]  # noqa: E731
    change(**changed)
    return change


def read(few_shot: bool = False, **changes) -> Collected:
    """Return what is collected for one task, one set and one text, changed by `changes`."""
    names = {"tasks": ["piqa"], "perplexity": ["ptb"]}
    return collect(params(**names | changes), few_shot)


def fetched(hub: Hub) -> set[str]:
    """Return the files that were fetched from the hub."""
    return {path.split("/resolve/")[1].split("/", 1)[1] for _, path, _ in hub.requests if "/resolve/" in path}


def write_params(folder: Path, **changes) -> None:
    """Write the params of the stage."""
    sections = {
        "data": params(**changes).model_dump(),
        "evaluate": {"num_fewshot": 1},
        "tune": {"data": "instructions"},
    }
    (folder / "params.yaml").write_text(yaml.safe_dump(sections), encoding="utf-8")


def run(folder: Path, hub: Hub, **changes) -> subprocess.CompletedProcess:
    """Run the stage in `folder`; every request it makes goes to `hub`."""
    write_params(folder, **changes)
    command = [forking_python(), "-m", "stages.data"]
    return subprocess.run(command, cwd=folder, env=variables(hub, folder), capture_output=True, text=True, check=False)


def tables(folder: Path) -> dict[str, pd.DataFrame]:
    return {str(file.relative_to(folder)): pd.read_parquet(file) for file in sorted(folder.rglob("*.parquet"))}


@pytest.mark.parametrize("name", TASKS)
def test_each_task_by_its_name(name, hub, settings):
    repository, config, scored, rows = TASKS[name]
    task = read(tasks=[name], few_shot=True).tasks[name]
    assert {split: table.to_pylist() for split, table in task.splits.items()} == {
        scored: rows.to_dict("records"), "train": rows[::-1].to_dict("records"),
    }  # fmt: skip
    asked = [path for path in fetched(hub) if hub.datasets[repository].get(path)]
    assert len(asked) == 2 and all(path.startswith(config or "data") for path in asked)


@pytest.mark.parametrize("name", [name for name, dataset in DATASETS.items() if dataset.held_out])
def test_each_text_by_its_name(name, settings):
    first = {"wikitext2": "", "wikitext2_tokenised": "<unk> 0", "ptb": "a line", "c4": "held out 0"}
    assert read(perplexity=[name]).perplexity[name][0].startswith(first[name])


@pytest.mark.parametrize(
    ("name", "lines", "last"),
    [
        ("bookcorpus", "book", 39),
        ("c4", "c4", 39),
        ("wikitext2", "wiki", 39),
        ("org/corpus", "line", 299),
        ("org/lines", "jsonl", 39),
        ("alpaca-cleaned", "Say\nword", None),
    ],
)
def test_each_calibration_by_its_name(name, lines, last, hub, settings):
    collected = read(calibration=name)
    joined = "\n".join(text for part in collected.texts.values() for text in part)
    assert joined.count(lines) and "other" not in joined
    assert last is None or (f"{lines} 0 " in joined and f"{lines} {last} " in joined)
    assert len(collected.instructions) == 200
    (record,) = [each for each in collected.sources if each["name"] == name][-1:]
    assert (record["split"], record["revision"]) == ("train", COMMIT)


def test_training_splits_are_needed_for_few_shot_examples_alone(hub, settings):
    del hub.datasets["baber/piqa"]["data/train-00000-of-00001.parquet"]
    assert list(read().tasks["piqa"].splits) == ["validation"]
    with pytest.raises(
        UserError, match=r"dataset baber/piqa at revision main has no file that matches \*train-\*\.parq"
    ):
        read(few_shot=True)


def test_a_revision_pins_a_dataset(hub, settings):
    read(revisions={"baber/piqa": COMMIT})
    asked = [path for _, path, _ in hub.requests if "piqa" in path]
    assert asked and not any("main" in path for path in asked)
    with pytest.raises(UserError, match=r"dataset baber/piqa at revision v9: the hub has no such revision \(404\)"):
        read(revisions={"baber/piqa": "v9"})


TERMS = "accept the terms on the hub and set HF_TOKEN"


@pytest.mark.parametrize(
    ("repository", "status", "code", "message"),
    [
        ("baber/piqa", 403, "GatedRepo", f"access denied (403); {TERMS}"),
        ("Salesforce/wikitext", 401, "GatedRepo", f"access denied (401); {TERMS}"),
        ("ptb-text-only/ptb_text_only", 403, "", "access denied (403)"),
        ("yahma/alpaca-cleaned", 401, "RepoNotFound", "not on the hub, or private (401); expected a public name, or a"),
    ],
)
def test_a_refusal_is_one_line_and_nothing_is_written(
    repository, status, code, message, hub, settings, tmp_path, monkeypatch
):
    hub.refused[repository] = (status, code)
    write_params(tmp_path)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as error:
        main()
    revision = "refs/convert/parquet" if "ptb" in repository else "main"
    assert str(error.value).startswith(f"dataset {repository} at revision {revision}: {message}")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "data").exists() and not (tmp_path / "metrics").exists()


def test_offline_the_cache_is_enough_and_what_it_lacks_is_named(hub, settings):
    online = read()
    hub.requests.clear()
    settings(HF_HUB_OFFLINE=True)
    offline = read()
    assert (offline.texts, offline.tasks, offline.sources) == (online.texts, online.tasks, online.sources)
    for changes, what in (
        ({"calibration": "bookcorpus"}, "bookcorpus/bookcorpus at revision refs/convert/parquet"),
        ({"calibration": "c4"}, "allenai/c4 at revision main"),
        ({"few_shot": True}, "baber/piqa at revision main"),
    ):
        with pytest.raises(UserError) as error:
            read(**changes)
        assert str(error.value).startswith(
            f"dataset {what}: missing from the hub's cache, or incomplete, and HF_HUB_OFF"
        )
    assert not hub.requests


def test_a_hub_that_does_not_answer(settings, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # before the client tries again
    settings(ENDPOINT="http://127.0.0.1:9", HUGGINGFACE_CO_URL_TEMPLATE="http://127.0.0.1:9/{repo_id}")
    with pytest.raises(
        UserError, match=r"dataset baber/piqa at revision main: the hub http://127\.0\.0\.1:9 cannot be r"
    ):
        read()


@pytest.mark.slow
def test_a_sweep_lets_its_stages_fetch(hub, stub_project, tmp_path, monkeypatch):
    """The sweep imports what checks params and names tasks; none of that may forbid its stages the network."""
    project = stub_project.copy(tmp_path / "project")
    shutil.copy(ROOT / "stages/data/__main__.py", project.folder / "stages/data")
    (project.folder / "stages/base/__main__.py").write_text("raise SystemExit('the data are there')\n")
    project.set(data__source="hub", data__tasks=["piqa"], data__perplexity=["ptb"], data__calibration="wikitext2")
    project.commit("Public data")
    for name in [name for name in os.environ if name.startswith("HF_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    done = project.run(*SWEEP, check=False)
    assert "base: failed: failed to reproduce 'base'" in done.stdout
    assert "data/validation-00000-of-00001.parquet" in fetched(hub)


@pytest.mark.slow
def test_hub_and_mirror_give_the_same(hub, tmp_path):
    here, there = tmp_path / "mirrored", tmp_path / "fetched"
    mirror = write_mirror(tmp_path / "mirror")
    for folder, changes in ((there, {"source": "hub"}), (here, {"source": "mirror", "mirror": str(mirror)})):
        folder.mkdir()
        before = len(hub.requests)
        done = run(folder, hub, **changes)
        assert done.returncode == 0, done.stderr
    assert len(hub.requests) == before, "the mirror needs no network"
    ours, theirs = tables(here / "data"), tables(there / "data")
    assert ours.keys() == theirs.keys()
    assert ours.keys() >= {f"tasks/{name}{part}.parquet" for name in TASKS for part in ("", ".train")}
    assert ours.keys() >= {f"perplexity/{name}.parquet" for name, dataset in DATASETS.items() if dataset.held_out}
    for name in ours:
        pd.testing.assert_frame_equal(ours[name], theirs[name], check_dtype=False)
    sources = json.loads((there / "data/sources.json").read_text())
    assert {source["revision"] for source in sources} == {COMMIT}
    assert all(len(source["sha256"]) == 64 for source in sources)
    metrics = json.loads((there / "metrics/details/data.json").read_text())
    assert metrics["hellaswag_questions"] == 2 and metrics["instructions"] == 200
