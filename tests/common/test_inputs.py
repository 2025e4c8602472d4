"""Stage check records how the user's own files are, so that DVC notices a change of them."""

import json
import os
from pathlib import Path

import pytest
import yaml
from helpers import ROOT

from stages.base.params import BaseParams
from stages.check.inputs import digest, record, used_paths
from stages.common.errors import UserError
from stages.data.params import DataParams

SECTIONS = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))


@pytest.fixture
def corpus(tmp_path, monkeypatch) -> Path:
    """A folder of two texts, seen from the project's folder."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "corpus"
    (folder / "sub").mkdir(parents=True)
    (folder / "a.txt").write_text("one")
    (folder / "sub/b.txt").write_text("two")
    return folder


def recorded(stage: str = "data") -> dict:
    return json.loads(Path(f"inputs/{stage}.json").read_text())


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: (folder / "a.txt").write_text("other"),
        lambda folder: os.utime(folder / "sub/b.txt", (1, 1)),
        lambda folder: (folder / "c.txt").write_text("new"),
        lambda folder: (folder / "a.txt").unlink(),
        lambda folder: (folder / "a.txt").rename(folder / "z.txt"),
        lambda folder: (folder / "link").symlink_to("nowhere"),
    ],
)
def test_every_change_changes_what_is_recorded(change, corpus):
    record("data", {"data.path": str(corpus)})
    first = recorded()
    record("data", {"data.path": str(corpus)})
    assert recorded() == first
    change(corpus)
    record("data", {"data.path": str(corpus)})
    assert recorded() != first


def test_no_file_is_opened(corpus):
    """A pipe would wait for ever."""
    os.mkfifo(corpus / "pipe")
    assert digest("data.path", str(corpus)) != digest("data.path", str(corpus / "a.txt"))
    (corpus / os.fsdecode(b"\xff.txt")).write_text("a name that is not UTF-8")
    digest("data.path", str(corpus))


def test_a_machine_without_the_files_keeps_what_was_recorded(corpus, capsys):
    record("data", {"data.path": str(corpus)})
    first = recorded()
    corpus.rename(corpus.with_name("away"))
    record("data", {"data.path": str(corpus)})
    assert recorded() == first
    assert capsys.readouterr().out == (
        f"check: data.path = {str(corpus)!r} is not on this machine; its state recorded in inputs/data.json is used\n"
    )
    with pytest.raises(UserError, match=r"data\.path = 'other' does not exist; expected a file or folder"):
        record("data", {"data.path": "other"})
    assert recorded() == first


def test_a_damaged_record_is_made_anew(corpus):
    Path("inputs").mkdir()
    Path("inputs/data.json").write_text("{")
    record("data", {"data.path": str(corpus)})
    assert recorded()["data.path"]["path"] == str(corpus)


def test_a_folder_of_millions_is_refused(corpus, monkeypatch):
    monkeypatch.setattr("stages.check.inputs.MOST_FILES", 1)
    with pytest.raises(UserError, match=r"data\.path = '.*' holds more than 1 files; expected the folder of the data"):
        digest("data.path", str(corpus))


@pytest.mark.parametrize(
    ("data", "base", "used"),
    [
        ({}, {}, {}),
        ({"path": "x"}, {"path": "y"}, {}),
        ({"source": "files", "path": "x"}, {"source": "path", "path": "y"}, {"data.path": "x", "base.path": "y"}),
        ({"source": "files", "path": "x", "mirror": "m"}, {}, {"data.path": "x", "data.mirror": "m"}),
        ({"source": "mirror", "mirror": "m"}, {"source": "gguf", "path": "y"}, {"data.mirror": "m", "base.path": "y"}),
        ({"source": "hub", "mirror": "m"}, {"source": "shape", "path": "y"}, {"base.path": "y"}),
    ],
)
def test_the_paths_that_the_stages_read(data, base, used):
    sections = DataParams.model_validate(SECTIONS["data"] | data), BaseParams.model_validate(SECTIONS["base"] | base)
    found = used_paths(*sections)
    assert found["data"] | found["base"] == used
