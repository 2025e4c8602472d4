"""A real Slurm of this machine that requeues jobs and ends them at their time limit. Run by `make test-cluster`."""

import re
import subprocess
import sys
import time
from contextlib import ExitStack

import clusters
import pytest
from helpers import ROOT
from project import Project, environment
from ruamel.yaml import YAML
from stub_project import use_remotes

pytestmark = [pytest.mark.slow, pytest.mark.cluster]

# Stage prune in steps that it resumes as training does: by the state that stages/common/resume.py keeps.
SLOW = """
def slow_prune(params, made=prune):
    import time
    from stages.common import resume
    state = resume.state_folder("prune", "slow") / "state"
    found = resume.read_state(state)
    first = found[0] if found else 0
    print("first step:", first, flush=True)
    for step in range(first, 150 if params["prune"]["ratio"] == 0.3 else 10**6):
        resume.write_state(state, step + 1)
        time.sleep(0.2)
    made(params)


prune = slow_prune
"""
SWEEP = ("python", "-m", "studies.sweep", "studies/small.yaml", "--executor", "slurm")


def first_steps(project: Project) -> list[int]:
    """Return the step at which each attempt at the variant began."""
    (log,) = project.folder.glob(".dvc/tmp/sweep/small-taylor-*.log")
    return [int(step) for step in re.findall("first step: ([0-9]+)", log.read_text(errors="replace"))]


def test_a_requeued_job_resumes_is_found_by_the_next_sweep_and_one_at_its_time_limit_is_named(stub_project, tmp_path):
    if reason := clusters.missing("slurm"):
        pytest.skip(reason)
    project = stub_project.copy(tmp_path / "project")
    stage = project.folder / "stages/prune/__main__.py"
    main = 'if __name__ == "__main__":'
    stage.write_text(stage.read_text().replace(main, f"{SLOW}\n\n{main}"))
    study = project.folder / "studies/small.yaml"
    study.write_text("grid: {prune.method: [taylor], prune.ratio: [0.3]}\n")
    project.commit("A slow variant")
    with ExitStack() as stack:
        variables = stack.enter_context(clusters.slurm_host(tmp_path / "slurm", cpus=2))
        use_remotes(project, tmp_path, slurm={"minutes": 60, "partition": "all"})
        variables = environment() | variables
        pipes = {"text": True, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        sweep = subprocess.Popen(SWEEP, cwd=project.folder, env=variables, **pipes)
        stack.callback(sweep.kill)
        folder = project.folder / ".dvc/tmp/sweep/slurm"
        for attempt, command in enumerate((["scancel", "--signal=USR2"], ["scontrol", "requeue"]), 1):
            # USR2 is how submitit learns that Slurm is about to preempt a job, and requeues it itself.
            clusters.wait_for(lambda: list(project.folder.glob(".dvc/tmp/sweep/small-taylor-*.log")), 240)
            clusters.wait_for(lambda count=attempt: len(first_steps(project)) == count, 240)
            (job,) = folder.glob("small-taylor-*.job")
            time.sleep(2)
            number = job.read_text()
            subprocess.run([*command, number], env=variables, check=True)
        sweep.kill()  # the job goes on, and the next sweep finds it
        sweep.communicate()
        sweep = subprocess.Popen(SWEEP, cwd=project.folder, env=variables, **pipes)
        printed = sweep.communicate()[0]
        assert "Slurm partition all: 1 jobs of yours in the queue" in printed and job.read_text() == number, printed
        steps = first_steps(project)
        assert sweep.returncode == 0 and "2/2 done, 0 failed" in printed, printed
        assert len(steps) == 3 and 0 == steps[0] < steps[1] < steps[2], steps
        assert [run.name for run in folder.glob("small-taylor-*.code")]

        # A variant by its number, in an array submitted by hand.
        commit = project.run("git", "rev-parse", "HEAD").stdout.strip()
        worker = [
            sys.executable, str(ROOT / "studies/worker.py"), "studies/small.yaml", "$SLURM_ARRAY_TASK_ID",
            "--repository", str(tmp_path / "bare.git"), "--commit", commit, "--remote", str(tmp_path / "storage"),
            "--python", sys.executable, "--folder", str(tmp_path / "work"),
        ]  # fmt: skip
        output = tmp_path / "array.txt"
        array = ["sbatch", "--wait", "--array=1", f"--output={output}", f"--wrap={' '.join(worker)}"]
        assert subprocess.run(array, env=variables).returncode == 0
        assert re.fullmatch(
            "espalier: worker: small-taylor-0.3-.*: is there already", output.read_text().splitlines()[-1]
        )

        study.write_text("grid: {prune.method: [taylor], prune.ratio: [0.4]}\n")
        settings = YAML(typ="safe").load(project.folder / "cluster.yaml")
        settings |= {"retries": 0, "slurm": settings["slurm"] | {"minutes": 3}}
        YAML(typ="safe").dump(settings, project.folder / "cluster.yaml")
        project.commit("A variant without an end")
        done = subprocess.run(SWEEP, cwd=project.folder, env=variables, **pipes)
        reason = "reached its time limit (cluster.yaml: slurm.minutes = 3; attempts: 1); the same command resumes it"
        assert done.returncode == 1 and "failed: small-taylor-0.4-" in done.stdout, done.stdout
        assert reason in done.stdout, done.stdout
