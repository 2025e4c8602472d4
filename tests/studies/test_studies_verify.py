"""What DVC takes for unchanged is hashed anew, and the commands that are printed make it again."""

import os
import re
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

VERIFY = ("python", "-m", "studies.verify")
MODEL = Path("models/base/model.safetensors")


def flip(path: Path) -> None:
    """Change one byte of a file in place, with its times and rights as they were."""
    before = path.stat()
    path.chmod(0o644)
    with path.open("r+b") as file:
        first = file.read(1)
        file.seek(0)
        file.write(bytes([first[0] ^ 1]))
    path.chmod(before.st_mode)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_a_byte_changed_in_place_is_found_and_made_again(stub_project, tmp_path):
    project = stub_project.copy(tmp_path / "project")
    project.run("dvc", "repro", "profile@base")
    assert re.search(r"\d+ outputs and \d+ objects of the cache, .*: nothing differs", project.run(*VERIFY).stdout)
    whole = (project.folder / MODEL).read_bytes()

    def verify_and_mend() -> str:
        assert "up to date" in project.run("dvc", "status", "base").stdout
        done = project.run(*VERIFY, check=False)
        assert done.returncode == 1 and f"{MODEL} differs from dvc.lock: " in done.stdout
        advised = done.stdout.splitlines()[0].split("dvc.lock: ")[1]
        project.run("bash", "-c", advised)
        assert (project.folder / MODEL).read_bytes() == whole
        project.run(*VERIFY)
        return advised

    flip(project.folder / MODEL)
    assert verify_and_mend() == "rm -rf models/base && dvc checkout models/base"
    # `dvc checkout` has made it a link into the cache, as in a clone: the byte changes there too.
    assert (project.folder / MODEL).stat().st_nlink == 2
    flip(project.folder / MODEL)
    assert verify_and_mend().endswith("&& dvc repro base")
