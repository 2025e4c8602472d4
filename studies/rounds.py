"""Prune and train in turns (Adapt-Pruner, Pan et al. 2025): python -m studies.rounds [--rounds 4] [--ratio 0.2]

A round is one run of stages prune and tune, which starts from the model of the round before. Each removes the same
share of the parameters that are left, so that after the last one --ratio of the base's are gone. Finished rounds are
kept in rounds/<rounds>-<ratio>, and the same command continues after them. Further options are those of `dvc exp run`.
"""

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

from stages.common.errors import UserError
from stages.common.outputs import staged
from stages.common.stage import FAILURE, run

FOLDER, BASE, RESULT = Path("rounds"), Path("models/base"), Path("models/merged")


def main() -> int:
    """Run the rounds that are missing, and print the command that compares the last one with a single cut."""
    options, further = arguments()
    check(options.rounds, options.ratio)
    before, folder = FOLDER / "base", FOLDER / f"{options.rounds}-{options.ratio:g}"
    keep(BASE, before)
    share = 1 - (1 - options.ratio) ** (1 / options.rounds)
    for number in range(1, options.rounds + 1):
        after = folder / str(number)
        if not after.exists():
            command = [*start_from(before), "-S", f"prune.ratio={share:.6f}", *further, "tune"]
            print(" ".join(["dvc", *command]), flush=True)
            if subprocess.run([sys.executable, "-m", "dvc", *command]).returncode:
                return FAILURE
            keep(RESULT, after)
        before = after
    single = [*start_from(FOLDER / "base"), "-S", f"prune.ratio={options.ratio:g}", "-S", f"+models.rounds={before}"]
    print(" ".join([f"{before} is the pruned model; beside one cut: dvc", *single, *further]))
    return 0


def check(rounds: int, ratio: float) -> None:
    """Raise UserError for values that are not allowed, and where there is no base."""
    if rounds < 1:
        raise UserError(f"--rounds = {rounds} is not allowed; expected at least 1")
    if not 0 < ratio < 1:
        raise UserError(f"--ratio = {ratio:g} is not allowed; expected a value between 0 and 1")
    if not BASE.is_dir():
        raise UserError(f"{BASE} is missing; run `dvc repro base` first")


def start_from(model: Path) -> list[str]:
    """Return the beginning of the arguments of dvc that run the pipeline on `model`."""
    return ["exp", "run", "-S", "base.source=path", "-S", f"base.path={model}"]


def keep(model: Path, folder: Path) -> None:
    """Copy the folder of a model, links followed, unless there is a copy."""
    if not folder.exists():
        with staged(folder) as copy:
            shutil.copytree(model, copy)


def arguments() -> tuple[argparse.Namespace, list[str]]:
    """Return the command line's options, and those for dvc."""
    parser = argparse.ArgumentParser(prog="python -m studies.rounds", description=__doc__)
    parser.add_argument("--rounds", type=int, default=4, help="how often to prune and train")
    parser.add_argument("--ratio", type=float, default=0.2, help="share of the base's parameters to remove in all")
    return parser.parse_known_args()


if __name__ == "__main__":
    run("rounds", main, "the same command continues after the last finished round")
