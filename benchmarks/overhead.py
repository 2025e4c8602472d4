"""The overhead of the pipeline: python benchmarks/overhead.py [--demo]

Three tables: `dvc repro` with nothing to do, against a DVC project with as many trivial stages; the start-up of every
stage, from a bare interpreter to the end of its imports, with the libraries that its own code asks for; and, with
--demo, the share of the demo's wall time (a full `dvc repro`, 6 minutes) in the stages that train, score and evaluate.
All run in clones in a temporary folder. Times are medians of wall time and of CPU time, which other jobs disturb less.
"""

import argparse
import ast
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from dvc.repo import Repo
from ruamel.yaml import YAML
from tabulate import tabulate

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from project import environment, new_project  # noqa: E402 - the path has to be there first

STAGES = ("check", "data", "base", "prune", "tune", "evaluate", "profile", "report")
WORK = ("base", "prune", "tune", "evaluate-base", "evaluate-pruned", "evaluate-tuned")  # as in metrics/runtime


def main(repetitions: int, demo: bool) -> None:
    """Print the tables."""
    with tempfile.TemporaryDirectory() as name:
        print(nothing_to_do(Path(name), repetitions), flush=True)
    print(start_up(repetitions), flush=True)
    if demo:
        with tempfile.TemporaryDirectory() as name:
            print(share_of_work(Path(name)), flush=True)


def nothing_to_do(folder: Path, repetitions: int) -> str:
    """Return the time of `dvc repro` where all is up to date: the project's, and that of trivial stages."""
    project = new_project(folder / "project", params={}).folder
    stages = finish_without_running(project)
    trivial = trivial_project(folder / "trivial", stages)
    runs: dict[Path, list[Cost]] = {project: [], trivial: []}
    for _ in range(repetitions):
        for place, costs in runs.items():
            costs.append(cost_of(["dvc", "repro"], place))
    rows = [
        [clock, mine, theirs, mine / theirs, 1.5]
        for clock, mine, theirs in zip(Cost._fields, *(median(costs) for costs in runs.values()), strict=True)
    ]
    title = f"`dvc repro` with nothing to do, {stages} stages, {repetitions} repetitions"
    return f"\n{title}\n\n{table(rows, ['seconds', 'ours', 'trivial stages', 'ratio', 'goal'])}"


def finish_without_running(folder: Path) -> int:
    """Give every stage outputs of a few bytes, have DVC take them for its results, and return the number of stages."""
    with Repo(folder) as repo:
        stages, outs = len(repo.index.stages), [Path(out.fs_path) for out in repo.index.outs]
    for out in outs:
        file = out if out.suffix else out / "config.json"  # what has no suffix is a folder
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("{}\n", encoding="utf-8")
    subprocess.run(["dvc", "commit", "--force", "--quiet"], cwd=folder, check=True, env=environment())
    return stages


def trivial_project(folder: Path, stages: int) -> Path:
    """Return a DVC project of a chain of stages that copy a file, all up to date."""
    folder.mkdir()
    (folder / "file0").write_text("content\n", encoding="utf-8")
    chain = {
        f"stage{i}": {"cmd": f"cp file{i} file{i + 1}", "deps": [f"file{i}"], "outs": [f"file{i + 1}"]}
        for i in range(stages)
    }
    YAML(typ="safe").dump({"stages": chain}, folder / "dvc.yaml")
    for command in (["git", "init", "-q"], ["dvc", "init", "-q"], ["dvc", "repro", "-q"]):
        subprocess.run(command, cwd=folder, check=True, env=environment())
    return folder


def start_up(repetitions: int) -> str:
    """Return the seconds until each stage's own code starts, and what it imports for that."""
    rows = []
    for stage in ("", *STAGES):
        command = [sys.executable, "-c", f"import stages.{stage}.__main__" if stage else ""]
        taken = median([cost_of(command, ROOT) for _ in range(repetitions)])
        rows.append([stage or "(bare Python)", *taken, ", ".join(libraries(stage)) if stage else ""])
    head = ["stage", "seconds", "CPU seconds", "libraries that its code imports at once"]
    return f"\nStart-up of every stage, {repetitions} repetitions\n\n{table(rows, head)}"


def libraries(stage: str) -> list[str]:
    """Return the libraries that the stage's own modules import when it starts, the standard library's left out."""
    own = "module.__file__ for name, module in sys.modules.items() if name.startswith('stages.')"
    code = f"import sys, stages.{stage}.__main__; print(*({own}))"
    files = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    names = set()
    for file in files.split():
        for node in ast.parse(Path(file).read_text(encoding="utf-8")).body:
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                names.add(str(node.module))
    roots = {name.split(".")[0] for name in names}
    return sorted(roots - set(sys.stdlib_module_names) - {"stages"})


def share_of_work(folder: Path) -> str:
    """Return what share of a whole demo, from nothing, is spent in the stages that do its work."""
    project = new_project(folder / "project", params={})
    total = cost_of(["dvc", "repro"], project.folder).clock
    runtime = {file.stem: json.loads(file.read_text()) for file in (project.folder / "metrics/runtime").glob("*.json")}
    inside = sum(runtime[name]["wall_seconds"] for name in WORK)
    rest = sum(cost["wall_seconds"] for name, cost in runtime.items() if name not in WORK)
    rows = [
        ["training, scoring, evaluation", inside, f"{inside / total:.1%}"],
        ["check, data, profile, report", rest, f"{rest / total:.1%}"],
        ["imports, DVC", total - inside - rest, f"{1 - (inside + rest) / total:.1%}"],
        ["`dvc repro`", total, ""],
    ]
    return f"\nThe demo, goal: 85 % in the first row\n\n{table(rows, ['where', 'seconds', 'share'])}"


class Cost(NamedTuple):
    """Seconds that a command took."""

    clock: float
    cpu: float


def cost_of(command: list[str], folder: Path) -> Cost:
    """Return what a command that has to succeed took, its own subprocesses included."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, cwd=folder, check=True, env=environment() | threads(), stdout=subprocess.DEVNULL)
    clock, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    return Cost(clock, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


def median(costs: list[Cost]) -> Cost:
    """Return the medians."""
    return Cost(*(statistics.median(each) for each in zip(*costs, strict=True)))


def threads() -> dict[str, str]:
    """Return the threads that the tests' environment takes away."""
    return {"OMP_NUM_THREADS": str(os.cpu_count())}


def table(rows: list[list], head: list[str]) -> str:
    """Return a table as Markdown."""
    return tabulate(rows, head, "pipe", floatfmt=".2f")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--demo", action="store_true", help="run the whole demo too")
    options = parser.parse_args()
    main(options.repetitions, options.demo)
