"""Section `data` of params.yaml: what it allows, and that it says so."""

import pytest
import yaml
from helpers import ROOT
from pydantic import ValidationError

from stages.common.errors import UserError
from stages.data.definitions import expand
from stages.data.params import DataParams
from stages.data.task_check import check_tasks
from stages.data.task_rows import dataset_of, splits

SECTION = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))["data"]


def params(**changes) -> DataParams:
    """Return the project's own section with `changes`, for a mirror that is not looked into."""
    return DataParams.model_validate(SECTION | {"source": "mirror", "mirror": "x", **changes})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("source", "web"),
        ("missing", "ignore"),
        ("tasks", "mmlu"),
        ("tasks", [1]),
        ("perplexity", ["alpaca-cleaned"]),
        ("calibration", "the-pile"),
        ("instructions", 3),
        ("characters", 0),
        ("revisions", ["main"]),
    ],
)
def test_values_that_are_not_allowed(key, value):
    params()
    with pytest.raises(ValidationError):
        params(**{key: value})


def test_every_dataset_that_is_read_can_be_pinned():
    pinned = ["aps/super_glue", "baber/piqa", "Salesforce/wikitext", "bookcorpus/bookcorpus", "org/a", "org/b"]
    names = {"tasks": ["boolq", "piqa"], "calibration": "org/a", "instructions": "org/b"}
    check_tasks(params(revisions=dict.fromkeys(pinned, "0123abc"), **names))


@pytest.mark.parametrize("name", ["Salesforce/wikitxt", "wikitext2", "org/corpus", "baber/piqa"])
def test_a_revision_of_no_dataset_is_named(name):
    """It would leave the dataset that is meant unpinned."""
    message = rf"revisions\.{name} = 'abc' does not pin a dataset that is read; expected one of: Rowan/hellaswag, "
    with pytest.raises(UserError, match=message):
        check_tasks(params(revisions={"Rowan/hellaswag": "abc", name: "abc"}, tasks=["hellaswag"]))


def test_a_task_that_lm_eval_does_not_know_is_named_with_those_that_it_does():
    with pytest.raises(
        UserError, match=r"data\.tasks = 'arc_chalenge' is not a task, .*; similar names: arc_challenge, "
    ):
        check_tasks(params(tasks=["pydocs_gap", "arc_chalenge"]))


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("humaneval", "runs code that the model writes"),
        ("squadv2", "is a Python class"),
        ("passkey", "makes its questions by a Python function"),
        ("mmmu_val_accounting", "shows images"),
        ("gsm8k_platinum", None),
        ("arithmetic_2da", None),
    ],
)
def test_tasks_that_are_left_to_lm_eval(name, what):
    if what is None:
        return check_tasks(params(tasks=[name]))
    with pytest.raises(UserError, match=rf"^data\.tasks: \w+ {what}, which only lm-eval itself runs; remove it$"):
        check_tasks(params(tasks=[name]))
    return None


def test_names_stand_for_what_lm_eval_says():
    """A task, a tag, a group of groups: the tasks, and a group's settings for them, are those of lm-eval's index."""
    known = expand(["gsm8k", "ai2_arc", "mmlu"], None)
    assert list(known.tasks)[:3] == ["gsm8k", "arc_challenge", "arc_easy"] and len(known.tasks) == 3 + 57
    assert known.groups["mmlu"].groups == ["mmlu_stem", "mmlu_other", "mmlu_social_sciences", "mmlu_humanities"]
    assert set(known.groups["mmlu"].tasks) == set(known.tasks) - {"gsm8k", "arc_challenge", "arc_easy"}


def test_each_task_of_a_group_reads_a_dataset_of_its_own():
    known = expand(["mmlu_stem"], None).tasks
    assert dataset_of(known["mmlu_anatomy"], "test").places("test")[0] == "cais/mmlu/anatomy/test.parquet"
    assert splits(known["mmlu_anatomy"].config, 0) == ("test", None)
    assert splits(known["mmlu_anatomy"].config, 5) == ("test", "dev")
    arithmetic = expand(["arithmetic_2da"], None).tasks["arithmetic_2da"]
    place = "EleutherAI/arithmetic/two_digit_addition/validation.parquet"
    assert dataset_of(arithmetic, "validation").places("validation")[0] == place
    assert dataset_of(arithmetic, "validation").patterns("validation") == ["data/two_digit_addition.jsonl"]
