"""What goes wrong: one line, a non-zero exit, nothing lost, and `dvc repro` goes on."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from project import environment, ran

pytestmark = pytest.mark.slow

STAGES = ["data", "base", "prune", "tune", "evaluate@pruned", "profile@pruned", "report"]


def lines_of_espalier(output: str) -> list[str]:
    return [line for line in output.splitlines() if line.startswith("espalier: ")]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prune__ratio": 1}, "espalier: check: params.yaml: prune.ratio = 1 is not allowed; allowed: less than 1"),
        ({"tune__learning_rat": 0.1}, "espalier: check: params.yaml: tune.learning_rat is not a known key"),
        ({"prune__mlp_layers": [2, 9]}, "espalier: check: prune.mlp_layers = [2, 9] is not allowed"),
        ({"evaluate__tasks": ["boolk"]}, "boolk"),
    ],
)
def test_a_bad_param_stops_the_run_before_any_output_is_replaced(project, change, message):
    before = project.hashes()
    project.set(**change)
    done = project.run("dvc", "repro", check=False)
    assert done.returncode != 0
    (line,) = lines_of_espalier(done.stdout)
    assert message in line
    assert "Traceback" not in done.stdout
    project.run("git", "checkout", "-q", "params.yaml")
    assert ran(project.run("dvc", "repro").stdout) == []
    assert project.hashes() == before


@pytest.mark.parametrize(
    ("stage", "number"),
    [*((stage, signal.SIGKILL) for stage in STAGES), ("base", signal.SIGINT), ("prune", signal.SIGINT)],
)
def test_a_killed_stage_is_done_again_with_the_same_result(project, stage, number):
    expected = project.hashes()
    again = ["dvc", "repro", "-s", "-f", "--no-run-cache", stage]  # -f: run it, whatever the caches hold
    started = subprocess.Popen(
        again,
        cwd=project.folder, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
    )  # fmt: skip
    wait_until_running(project, stage)
    os.killpg(started.pid, number)
    started.communicate(timeout=60)
    assert started.returncode != 0
    assert not [path for path in project.folder.glob("models/.*.partial") if number == signal.SIGINT]
    assert ran(project.run(*again).stdout) == [stage]
    assert project.hashes() == expected
    assert ran(project.run("dvc", "repro").stdout) in ([], ["report"])  # profile's times are new
    assert not list(project.folder.glob("models/.*.partial"))


def wait_until_running(project, stage: str) -> None:
    """Return a moment after the stage's own process has started."""
    module = f"stages.{stage.split('@')[0]}".encode()
    for _ in range(600):
        if any(
            is_stage(process, module, project.folder) for process in Path("/proc").iterdir() if process.name.isdigit()
        ):
            time.sleep(1.5)
            return
        time.sleep(0.05)
    pytest.fail(f"{stage} never started")


def is_stage(process: Path, module: bytes, folder: Path) -> bool:
    """Return whether the process runs `module` in `folder`."""
    try:
        return module in (process / "cmdline").read_bytes().split(b"\0") and (process / "cwd").readlink() == folder
    except OSError:
        return False


@pytest.fixture
def small_disk(project):
    """models/ on a tmpfs with room for half a checkpoint; skipped where mounting is not allowed."""
    models = project.folder / "models"
    kept = project.folder / "kept"
    models.rename(kept)
    models.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", models], capture_output=True).returncode:
        pytest.skip("needs the right to mount a tmpfs")
    (models / "base").symlink_to(kept / "base")
    yield models
    subprocess.run(["umount", models], check=True)


def test_a_full_disk_is_one_line_and_leaves_nothing_half_written(project, small_disk):
    project.set(base__hidden_size=32)
    (small_disk / "filler").write_bytes(b"0" * 60_000)
    done = project.run("python", "-m", "stages.prune", check=False)
    assert done.returncode == 1
    (line,) = lines_of_espalier(done.stdout)
    assert "no space left on the disk" in line
    assert "Traceback" not in done.stdout
    assert sorted(path.name for path in small_disk.iterdir()) == ["base", "filler"]
