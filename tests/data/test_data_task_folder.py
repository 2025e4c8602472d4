"""Tasks of the user's own: a folder of lm-eval's YAML files, whose functions run only if the params say so."""

import pandas as pd
import pytest
import yaml
from helpers import ROOT

from stages.common.errors import UserError
from stages.common.task_files import build, local, read_task
from stages.data.library import Library
from stages.data.params import DataParams
from stages.data.stock_tasks import read_tasks, with_chance
from stages.data.task_check import check_tasks, lm_eval_tasks
from stages.data.task_files import write_task
from stages.evaluate import tasks as evaluated

SECTION = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))["data"]
PLAIN = """
include: base.yaml.inc
task: capitals
"""
BASE = """
dataset_path: me/capitals
output_type: multiple_choice
validation_split: validation
doc_to_text: "The capital of {{country}} is"
doc_to_choice: "{{cities}}"
doc_to_target: label
metric_list: [{metric: acc}]
metadata: {version: 3}
"""
WITH_FUNCTION = PLAIN.replace("capitals", "shouted") + "doc_to_text: !function words.shout\n"
MODULE = """
from pathlib import Path
Path(r"{ran}").touch()
def shout(doc):
    return doc["country"].upper() + ":"
"""
ROWS = [{"country": "France", "cities": ["Paris", "Rome"], "label": 0},
        {"country": "Italy", "cities": ["Paris", "Rome", "Bonn"], "label": 1}]  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "base.yaml.inc").write_text(BASE)
    (folder / "plain.yaml").write_text(PLAIN)
    (folder / "shouted.yaml").write_text(WITH_FUNCTION)
    (folder / "words.py").write_text(MODULE.format(ran=tmp_path / "ran"))
    place = tmp_path / "mirror/me/capitals"
    place.mkdir(parents=True)
    pd.DataFrame(ROWS).to_parquet(place / "validation.parquet")
    return folder


def params(folder, tmp_path, **changes) -> DataParams:
    places = {"source": "mirror", "mirror": str(tmp_path / "mirror"), "task_folder": str(folder)}
    return DataParams.model_validate(SECTION | places | {"tasks": ["capitals"]} | changes)


def written(section: DataParams, tmp_path):
    """Return the folder data/tasks of the params."""
    found = read_tasks(lm_eval_tasks(section).tasks, Library(section).get, 0)
    folder = tmp_path / "tasks"
    folder.mkdir()
    for name, task in found.items():
        write_task(name, with_chance(task), folder, folder)
    return folder


def prompts(folder, name, tmp_path) -> list[str]:
    """Return what the task asks."""
    task = build(local(read_task(folder / f"{name}.yaml"), tmp_path / "cache"))
    return [task.doc_to_text(document) for document in task.eval_docs]


@pytest.mark.slow
def test_a_file_without_functions_is_snapshotted_whole(folder, tmp_path):
    section = params(folder, tmp_path)
    check_tasks(section)
    made = written(section, tmp_path)
    for file in folder.iterdir():
        file.unlink()
    assert prompts(made, "capitals", tmp_path) == ["The capital of France is", "The capital of Italy is"]
    config = yaml.safe_load((made / "capitals.yaml").read_text())
    assert config["metadata"]["chance"] == pytest.approx((1 / 2 + 1 / 3) / 2) and config["metadata"]["version"] == 3
    assert not (tmp_path / "ran").exists()


@pytest.mark.slow
def test_functions_run_only_if_the_params_say_so(folder, tmp_path):
    refused = params(folder, tmp_path, tasks=["shouted"])
    with pytest.raises(UserError, match=r"shouted uses the Python function words\.shout of .*mine; set data"):
        check_tasks(refused)
    assert not (tmp_path / "ran").exists(), "the check runs nothing"
    allowed = params(folder, tmp_path, tasks=["shouted"], task_functions=True)
    check_tasks(allowed)
    assert not (tmp_path / "ran").exists()
    made = written(allowed, tmp_path)
    (folder / "words.py").unlink()
    assert prompts(made, "shouted", tmp_path) == ["FRANCE:", "ITALY:"]
    with pytest.raises(UserError, match=r"functions holds Python functions; set data\.task_functions: true"):
        evaluated.read_tasks(made, "all", tmp_path / "cache")
    (config,) = evaluated.read_tasks(made, "all", tmp_path / "cache", functions=True).configs
    assert config["task"] == "shouted"


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match=r"data\.task_folder = '.*nowhere' is not a folder"):
        check_tasks(params(tmp_path / "nowhere", tmp_path))
