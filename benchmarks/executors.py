"""What a sweep costs by executor: python benchmarks/executors.py [--workers 4] [local] [slurm] [ray]

A base and eight variants of stages without models, so many variants at a time. Stage prune waits for 20 s, as for a
GPU. The base warms clone and cache, so the table is about the others. Ray and Slurm run on this machine, as in
tests/studies/test_studies_cluster.py: it needs `make ray slurm`, and for Slurm root and Debian's slurm-wlm and munge.

A variant's seconds are those that the sweep sees, from its start or submission until its results are here; less the
stages' own that is the overhead, and less the stages' own the worker's seconds are its part. CPU seconds, for each of
the nine experiments, are those of the workers less the stages', and those of the sweep with the study's page. Local
variants are part of the sweep; Ray's and Slurm's services are left out. The idle share is the part of the workers' time
in which no variant ran. The whole sweep is also simulated by benchmarks/scale.py, from the measured seconds of the base
and the variants.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from statistics import median

from ruamel.yaml import YAML
from tabulate import tabulate

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import clusters  # noqa: E402 - the path has to be there first
from project import Project, environment  # noqa: E402
from stub_project import new_stub_project, use_remotes  # noqa: E402

from benchmarks.scale import makespan  # noqa: E402

STUDY = "grid: {prune.method: [l1, l2], prune.ratio: [0.1, 0.2, 0.3, 0.4]}\n"
VARIANTS = 8
EXACT = "import sys; from studies import progress, sweep; progress.duration = '{:.2f} s'.format; sys.exit(sweep.main())"
SWEEP = ("python", "-c", EXACT, "studies/small.yaml")
WAIT = {"prune": "sleep 20; "}
TIMED = "bash -c 'TIMEFORMAT=\"stage took %R %U %S\"; time ({wait}{command})'"
PYTHON = """#!/bin/bash
TIMEFORMAT="worker took %R %U %S"; time {python} "$@"
"""
HEAD = (
    "executor", "variant, s", "stages, s", "overhead, s", "in worker, s", "worker CPU, s", "sweep CPU, s", "idle",
    "all, s", "simulated, s",
)  # fmt: skip


def timed_project(folder: Path) -> Project:
    """Return a project of stub stages that print how long they took."""
    project = new_stub_project(folder, STUDY)
    yaml = YAML()
    yaml.width = 1000
    pipeline = yaml.load(project.folder / "dvc.yaml")
    for name, stage in pipeline["stages"].items():
        content = stage.get("do", stage)
        content["cmd"] = TIMED.format(wait=WAIT.get(name, ""), command=content["cmd"])
    yaml.dump(pipeline, project.folder / "dvc.yaml")
    project.commit("Stages that print their time")
    return project


def use_cluster(executor: str, workers: int, project: Project, folder: Path, stack: ExitStack) -> dict[str, str]:
    """Start the cluster; give the project its remotes, and workers that print their time; return variables."""
    variables, settings = {}, {}
    if executor == "ray":
        cluster, _ = stack.enter_context(clusters.ray_nodes(1, cpus=workers))
        settings["ray"] = {"address": cluster.address}
    else:
        variables = stack.enter_context(clusters.slurm_host(folder / "slurm", cpus=workers))
    use_remotes(project, folder, **settings)
    python = folder / "python"
    python.write_text(PYTHON.format(python=sys.executable))
    python.chmod(0o755)
    file = project.folder / "cluster.yaml"
    content = YAML(typ="safe").load(file)
    YAML(typ="safe").dump(content | {"python": str(python)}, file)
    return variables


def sweep(
    executor: str, workers: int, project: Project, variables: dict[str, str]
) -> tuple[dict[str, float], float, float, float]:
    """Run the sweep; return each experiment's seconds, those of the base, those after it, and the CPU seconds."""
    started = time.monotonic()
    command = [*SWEEP, "--jobs", str(workers), "--executor", executor]
    process = subprocess.Popen(
        command, cwd=project.folder, env=environment() | variables, text=True, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    seen, base_end, end = {}, started, started
    for line in process.stdout:
        print(line, end="", file=sys.stderr)
        if found := re.search(r"^(\S+): ([\d.]+) s$", line):
            seen[found[1]], end = float(found[2]), time.monotonic()
            base_end = end if found[1] == "base" else base_end
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode or len(seen) != VARIANTS + 1:
        raise SystemExit(f"the sweep with {executor} failed; its output is above")
    return seen, base_end - started, end - base_end, usage.ru_utime + usage.ru_stime


def times(text: str, what: str) -> list[tuple[float, float]]:
    """Return the wall and CPU seconds of what a log says took some."""
    found = re.findall(rf"^{what} took ([\d.]+) ([\d.]+) ([\d.]+)", text, re.MULTILINE)
    return [(float(wall), float(user) + float(system)) for wall, user, system in found]


def measure(executor: str, workers: int, folder: Path) -> list:
    """Return the row of an executor."""
    project = timed_project(folder / "project")
    with ExitStack() as stack:
        variables = {} if executor == "local" else use_cluster(executor, workers, project, folder, stack)
        seen, base, whole, cpu = sweep(executor, workers, project, variables)
    stages, inside, busy, worker = [], [], 0.0, 0.0
    for label, seconds in seen.items():
        (log,) = project.folder.glob(f".dvc/tmp/sweep/small-{label}-*.log")
        text = log.read_text(errors="replace")
        own = sum(each for _, each in times(text, "stage"))
        if executor == "local":
            cpu -= own
        else:
            worker += sum(each for _, each in times(text, "worker")) - own
        if label != "base":
            stages.append(sum(wall for wall, _ in times(text, "stage")))
            whole_worker = sum(wall for wall, _ in times(text, "worker"))
            busy += whole_worker or seconds
            inside.append(whole_worker - stages[-1])
    variants = [seconds for label, seconds in seen.items() if label != "base"]
    simulated = makespan(base, variants, workers)
    overhead = median(seconds - own for seconds, own in zip(variants, stages, strict=True))
    count = len(seen)
    return [
        executor, median(variants), median(stages), overhead, median(inside) if worker else None,
        worker / count or None, cpu / count, f"{1 - busy / whole / workers:.0%}", base + whole, simulated,
    ]  # fmt: skip


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("executors", nargs="*", default=["local", "slurm", "ray"], help="all by default")
    parser.add_argument("--workers", type=int, default=4, help="variants at a time")
    options = parser.parse_args()
    table = []
    for executor in options.executors:
        if executor != "local" and (reason := clusters.missing(executor)):
            print(f"{executor}: not measured: {reason}", file=sys.stderr)
            continue
        with tempfile.TemporaryDirectory() as folder:
            table.append(measure(executor, options.workers, Path(folder)))
    print(tabulate(table, HEAD, "pipe", floatfmt=".1f"))


if __name__ == "__main__":
    main()
