"""Section `data` of params.yaml: what it allows, and that it says so."""

import pytest
import yaml
from helpers import ROOT
from pydantic import ValidationError

from stages.data.datasets import STOCK
from stages.data.params import DataParams
from stages.data.stock_tasks import definition

SECTION = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))["data"]


def params(**changes) -> DataParams:
    """Return the project's own section with `changes`, for a mirror that is not looked into."""
    return DataParams.model_validate(SECTION | {"source": "mirror", "mirror": "x", **changes})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("source", "web"),
        ("missing", "ignore"),
        ("tasks", ["mmlu"]),
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
    names = params(revisions=dict.fromkeys(pinned, "0123abc"), calibration="org/a", instructions="org/b")
    assert list(names.revisions) == pinned


@pytest.mark.parametrize("name", ["Salesforce/wikitxt", "wikitext2", "org/corpus"])
def test_a_revision_of_no_dataset_is_named(name):
    """It would leave the dataset that is meant unpinned."""
    message = rf"revisions\.{name} = 'abc' pins no dataset; allowed: Rowan/hellaswag, Salesforce/wikitext, allenai/"
    with pytest.raises(ValidationError, match=message):
        params(revisions={"Rowan/hellaswag": "abc", name: "abc"})


@pytest.mark.parametrize("name", STOCK)
def test_the_datasets_of_tasks_are_those_of_lm_eval(name):
    path, repo, _ = STOCK[name]
    assert definition(path)["dataset_path"] == repo
