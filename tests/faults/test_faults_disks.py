"""A full disk and a folder that cannot be written: one line, and the outputs that were there are there."""

import subprocess
from collections.abc import Iterator

import pytest
from campaign import LARGE, attempt
from project import NOT_COPIED, Project

pytestmark = pytest.mark.slow

MODELS = ("base", "pruned", "tuned")
STAGES = ["prune"]
if LARGE:
    STAGES = ["check", "data", "base", "prune", "tune", "export", "report"]
    STAGES += [f"{stage} {model}" for stage in ("evaluate", "profile") for model in MODELS]


@pytest.fixture(params=STAGES)
def on_small_disk(request, finished, tmp_path) -> Iterator[tuple[Project, str]]:
    """The finished project on a tmpfs of its own, and a stage; skipped where mounting is not allowed."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256m", "tmpfs", folder], capture_output=True).returncode:
        pytest.skip("needs the right to mount a tmpfs")
    yield finished.copy(folder / "project"), request.param
    subprocess.run(["umount", "-l", folder], check=True)


def contents(project: Project) -> dict[str, bytes]:
    """Return the outputs, without times and without the curves that grow while a stage runs."""
    folders = [project.folder / name.rstrip("/") for name in NOT_COPIED if name.endswith("/")]
    files = [file for folder in folders for file in folder.rglob("*") if file.is_file()]
    return {str(file): file.read_bytes() for file in files if not {"runtime", "live"} & {*file.parts}}


@pytest.mark.parametrize("fault", ["full", "read-only"])
def test_a_stage_that_cannot_write_is_one_line_and_keeps_the_outputs(on_small_disk, fault):
    project, stage = on_small_disk
    before, disk = contents(project), project.folder.parent
    if fault == "read-only":
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    else:
        with (disk / "filler").open("wb", buffering=0) as filler, pytest.raises(OSError, match="No space left"):
            while True:
                filler.write(bytes(4096))
    with attempt(f"disks, {fault}"):
        module, *arguments = stage.split()
        done = project.run("python", "-m", f"stages.{module}", *arguments, check=False)
        assert done.returncode == 1, done.stdout
        (line,) = [line for line in done.stdout.splitlines() if line.startswith("espalier: ")]
        assert ("no space left on the disk" if fault == "full" else "Read-only file system") in line
        assert "Traceback" not in done.stdout
        assert contents(project) == before
        assert not [path for path in project.folder.rglob(".*.partial") if ".dvc" not in path.parts]
