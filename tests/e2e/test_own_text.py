"""The user's own text in the pipeline: dvc makes the data again when a file changes, and only then."""

import json

import pandas as pd
import pytest
from project import new_project, ran

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """A project on a folder of texts outside it, and that folder."""
    folder = tmp_path_factory.mktemp("own")
    corpus = folder / "my texts"
    corpus.mkdir()
    for number in range(60):
        (corpus / f"{number}.txt").write_text(f"Text {number} tells of tree {number} and of wall {number}.")
    project = new_project(folder / "project")
    project.set(data__source="files", data__path=str(corpus), data__tasks=[], data__perplexity=[], tune__data="text")
    return project, corpus


def test_data_are_made_again_when_a_file_changes_and_only_then(own):
    project, corpus = own
    assert ran(project.run("dvc", "repro", "data").stdout) == ["data"]
    assert len(pd.read_parquet(project.folder / "data/perplexity/own.parquet")) == 9
    assert json.loads((project.folder / "metrics/details/data.json").read_text())["own_domain"] == "own"
    assert ran(project.run("dvc", "repro", "data").stdout) == []
    (corpus / "60.txt").write_text("A new text.")
    assert ran(project.run("dvc", "repro", "data").stdout) == ["data"]
    # On a machine without the files, what was made of them is still good.
    corpus.rename(corpus.with_name("away"))
    again = project.run("dvc", "repro", "data").stdout
    assert ran(again) == [] and "is not on this machine; its state recorded in inputs/data.json is used" in again
    corpus.with_name("away").rename(corpus)


def test_missing_instructions_stop_the_run_before_a_model_is_made(own):
    project, _ = own
    project.set(tune__data="both")
    done = project.run("dvc", "repro", check=False)
    project.set(tune__data="text")
    (line,) = (each for each in done.stdout.splitlines() if each.startswith("espalier: "))
    assert line.startswith(
        "espalier: data: tune.data = 'both', but data.source = 'files' provides no instructions; set"
    )
    assert ran(done.stdout) == ["data"]
