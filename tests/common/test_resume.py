"""A state is read back as it was written, or not at all."""

import os
from pathlib import Path

import pytest
import torch

from stages.common import resume
from stages.common.resume import digest, forget, read_state, state_folder, write_state

RECORD = {"step": 7, "losses": [1 / 3, 0.1 + 0.2], "text": "ü\n"}
TENSORS = {
    "a.b": torch.arange(6.0).view(2, 3),
    "c": torch.tensor([1.5, -2.0], dtype=torch.bfloat16),
    "d": torch.ones(()),
}


def test_a_state_is_read_back_as_it_was_written(tmp_path):
    assert read_state(tmp_path / "none" / "state") is None
    write_state(tmp_path / "folder" / "state", RECORD, TENSORS)
    record, tensors = read_state(tmp_path / "folder" / "state")
    assert record == RECORD
    assert tensors.keys() == TENSORS.keys()
    assert all(torch.equal(tensors[name], TENSORS[name]) for name in TENSORS)
    write_state(tmp_path / "folder" / "state", [0.1 + 0.2, None])
    assert read_state(tmp_path / "folder" / "state") == ([0.1 + 0.2, None], {})
    assert [file.name for file in (tmp_path / "folder").iterdir()] == ["state"]


def damages(whole: bytes) -> dict[str, bytes]:
    flipped = {f"bit of byte {at}": whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :] for at in range(len(whole))}
    cut = {f"cut at {at}": whole[:at] for at in range(0, len(whole), 37)}
    other = {"zeros": bytes(len(whole)), "half zeros": whole[:100] + bytes(len(whole) - 100), "longer": whole + b"x"}
    return flipped | cut | other | {"text": b"no safetensors", "json": b"[]"}


def test_a_damaged_state_is_dropped_with_one_line(tmp_path, capsys):
    file = tmp_path / "state"
    write_state(file, RECORD, TENSORS)
    whole = file.read_bytes()
    for name, damaged in damages(whole).items():
        file.write_bytes(damaged)
        found = read_state(file)
        (line, *more) = capsys.readouterr().err.splitlines() or [""]
        if found is not None:  # what the header is padded with means nothing
            assert found[0] == RECORD, name
            assert all(torch.equal(found[1][key], TENSORS[key]) for key in TENSORS), name
            continue
        assert line.startswith(f"espalier: {file} is damaged ("), name
        assert line.endswith(") and was removed; this part starts again"), name
        assert not more, name
        assert not file.exists(), name
        assert read_state(file) is None


@pytest.mark.parametrize("changed", ["record", "value", "name", "shape", "dtype"])
def test_the_checksum_is_of_everything(tmp_path, monkeypatch, changed):
    other = {
        "value": TENSORS | {"d": torch.zeros(())},
        "name": {("e" if name == "d" else name): value for name, value in TENSORS.items()},
        "shape": TENSORS | {"d": torch.ones(1)},
        "dtype": TENSORS | {"c": TENSORS["c"].view(torch.float16)},
    }
    right = resume.checksum(resume.json.dumps(RECORD), TENSORS)
    monkeypatch.setattr(resume, "checksum", lambda *_: right)
    write_state(
        tmp_path / "state", RECORD | {"step": 8} if changed == "record" else RECORD, other.get(changed, TENSORS)
    )
    monkeypatch.undo()
    assert read_state(tmp_path / "state") is None


def test_a_folder_removed_by_another_run_is_made_anew(tmp_path, monkeypatch):
    save_file, left = resume.save_file, [1]

    def remove_first(tensors, path, metadata):
        save_file(tensors, path, metadata=metadata)
        if left:
            left.pop()
            forget(path.parent)

    monkeypatch.setattr(resume, "save_file", remove_first)
    write_state(tmp_path / "shared" / "state", 1, TENSORS)
    assert read_state(tmp_path / "shared" / "state")[0] == 1


def test_two_processes_write_beside_each_other(tmp_path, monkeypatch):
    """The second one writes while the first one has its temporary file open."""
    save_file = resume.save_file

    def both(tensors, path, metadata):
        save_file(tensors, path, metadata=metadata)
        if metadata["record"] == "1":
            monkeypatch.setattr(os, "getpid", lambda: 2)
            write_state(tmp_path / "state", 2, TENSORS)

    monkeypatch.setattr(resume, "save_file", both)
    write_state(tmp_path / "state", 1, TENSORS)
    assert read_state(tmp_path / "state")[0] == 1
    assert [file.name for file in tmp_path.iterdir()] == ["state"]


def test_a_full_disk_keeps_the_state_before_it(tmp_path, monkeypatch):
    write_state(tmp_path / "state", 3, {"w": torch.ones(2)})

    def fail(tensors, path, metadata):
        Path(path).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(resume, "save_file", fail)
    with pytest.raises(OSError, match="No space"):
        write_state(tmp_path / "state", 4, {"w": torch.zeros(2)})
    record, tensors = read_state(tmp_path / "state")
    assert record == 3
    assert torch.equal(tensors["w"], torch.ones(2))
    assert [file.name for file in tmp_path.iterdir()] == ["state"]


def test_the_state_lives_under_the_outermost_dvc_folder_and_is_keyed_by_its_inputs(tmp_path, monkeypatch):
    workspace = tmp_path / ".dvc/tmp/exps/tmp123"
    (workspace / ".dvc").mkdir(parents=True)
    monkeypatch.chdir(workspace)
    inside = state_folder("tune", "params", "hash")
    assert inside.parent == tmp_path / ".dvc/tmp/resume"
    monkeypatch.chdir(tmp_path)
    assert state_folder("tune", "params", "hash") == inside
    others = [state_folder("base", "params", "hash"), state_folder("tune", "p", "hash"), state_folder("tune", "params")]
    assert len({inside, *others}) == 4


def test_without_dvc_the_state_lives_in_the_working_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert state_folder("tune").parent == tmp_path / ".dvc/tmp/resume"


def test_the_digest_is_of_the_content(tmp_path):
    (tmp_path / "a/inner").mkdir(parents=True)
    (tmp_path / "a/one").write_text("1")
    (tmp_path / "a/inner/two").write_text("2")
    first = digest(tmp_path / "a", tmp_path / "a/one")
    (tmp_path / "a/code.pyc").write_text("compiled")
    assert digest(tmp_path / "a", tmp_path / "a/one") == first
    (tmp_path / "a").rename(tmp_path / "b")
    assert digest(tmp_path / "b", str(tmp_path / "b/one")) == first
    (tmp_path / "b/inner/two").write_text("3")
    assert digest(tmp_path / "b", tmp_path / "b/one") != first
