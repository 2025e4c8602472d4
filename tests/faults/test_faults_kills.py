"""Kill a pipeline or a sweep at any time: the same command ends with the same bytes."""

import os
import random
import signal
import subprocess
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest
from campaign import LARGE, attempt
from project import Project, environment, new_project, ran
from stub_project import LABELS, SWEEP, experiments, tables

pytestmark = pytest.mark.slow

SIGNALS = [signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP]
CLEAN = {signal.SIGTERM, signal.SIGINT}  # which a stage answers, and tidies up


def stages_of(project: Project) -> list[str]:
    """Return the names of the stages as DVC names them; a part of `make test` has one of each kind."""
    names = project.run("dvc", "stage", "list", "--name-only").stdout.split()
    return [name for name in names if LARGE or not name.endswith(("@base", "@tuned"))]


def write_plan(folder: Path, stages: list[str], draw: random.Random) -> dict[str, signal.Signals]:
    """Write at which random moment each stage is killed, half of them between writes; return by which signal."""
    folder.mkdir()
    numbers = {stage: draw.choice(SIGNALS) for stage in stages}
    for stage, number in numbers.items():
        moment = draw.choice([f"{draw.randint(1, 12)} writes", f"{draw.uniform(0, 5)} seconds"])
        (folder / stage).write_text(f"{number.value} {moment}")
    return numbers


def answer_signals() -> None:
    """Let signals end the process, also where the tests run under nohup or in the background of a shell."""
    for number in SIGNALS[1:]:
        signal.signal(number, signal.SIG_DFL)


def start(project: Project, plan: Path, command: Sequence[str]) -> subprocess.Popen:
    """Start a command in whose stages the plan is carried out."""
    killer = {"PYTHONPATH": str(Path(__file__).with_name("killer")), "ESPALIER_PLAN": str(plan)}
    return subprocess.Popen(
        command, cwd=project.folder, env=environment() | killer, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True, preexec_fn=answer_signals,
    )  # fmt: skip


def names(folder: Path) -> set[str]:
    return {file.name for file in folder.iterdir()}


def partial(project: Project) -> list[Path]:
    """Return what is half-written."""
    return [path for path in project.folder.rglob(".*.partial") if ".dvc" not in path.parts]


@pytest.mark.parametrize("seed", range(6 if LARGE else 1))
def test_a_pipeline_killed_once_in_every_stage_ends_with_the_same_bytes(finished, tmp_path, seed):
    """A second run from nothing too, so this is also the test that two runs give the same bytes."""
    project = new_project(tmp_path / "project")
    plan = tmp_path / "plan"
    numbers = write_plan(plan, stages_of(project), random.Random(seed))
    with ExitStack() as counted:
        for _ in range(len(numbers) + 1):
            left = names(plan)
            process = start(project, plan, ["dvc", "repro"])
            output = process.communicate()[0]
            killed = left - names(plan)
            if not killed:
                break
            (stage,) = killed
            counted.enter_context(attempt(f"stages killed by {numbers[stage].name}"))
            assert process.returncode != 0 and "Traceback" not in output, f"{stage}: {output}"
            assert numbers[stage] not in CLEAN or not partial(project), stage
        assert process.returncode == 0, output
        assert len(names(plan)) <= len(numbers) / 2  # the rest ended before their moment
        assert project.hashes() == finished.hashes()
        assert ran(project.run("dvc", "repro").stdout) == []
        assert not partial(project)


@pytest.mark.skipif(not LARGE, reason="make test has a killed sweep in tests/studies")
@pytest.mark.parametrize("seed", range(4))
def test_a_sweep_killed_again_and_again_ends_with_the_same_tables(swept, stub_project, tmp_path, seed):
    project = stub_project.copy(tmp_path / "project")
    plan, draw, left = tmp_path / "plan", random.Random(seed), 4
    write_plan(plan, ["base", "prune", "evaluate@pruned", "tune"], draw)
    with ExitStack() as counted:
        for _ in range(20):
            sweep, planned, number = start(project, plan, SWEEP), names(plan), draw.choice(SIGNALS)
            try:
                output = sweep.communicate(timeout=draw.uniform(1, 12) if left else None)[0]
                killed = [f"sweeps, a stage killed: {stage}" for stage in sorted(planned - names(plan))]
            except subprocess.TimeoutExpired:
                left -= 1
                killed = [f"sweeps killed by {number.name}"]
                os.killpg(sweep.pid, number)
                output = sweep.communicate()[0]
            assert "Traceback" not in output
            if not killed:
                break
            for kind in killed:
                counted.enter_context(attempt(kind))
        assert sweep.returncode == 1 and "3/4 done, 1 failed" in output, output
        assert set(experiments(project)) == LABELS
        assert project.run("git", "status", "--porcelain").stdout == ""
        assert tables(project) == tables(swept[0])
