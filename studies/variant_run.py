"""python -m studies.variant_run STUDY VARIANT: run one variant in this clone and push it to where the clone is from.

`studies.worker` calls it in the environment that it has made. What is on the remote already is not run again.
"""

import argparse
import os
import signal
import sys
import time
from pathlib import Path

from stages.common.errors import UserError, one_line
from stages.common.stage import FAILURE, INTERRUPTED, run
from studies.exchange import fetch_experiments, push_experiment
from studies.experiments import reference_of
from studies.git import git
from studies.study import Study, Variant, load_study
from studies.workspace import Workspace, discard

REMOTE = "origin"
WAIT_SECONDS, GRACE_SECONDS = 1, 30


def main() -> int:
    """Run the variant unless it is there, push it, print what happened, and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m studies.variant_run", description=__doc__)
    parser.add_argument("study", type=Path)
    parser.add_argument("variant")
    arguments = parser.parse_args()
    study = load_study(arguments.study)
    variant = find_variant(study, arguments.variant)
    workspace = Workspace(variant, git("rev-parse", "HEAD"), ("--pull", "--allow-missing"))
    if not workspace.claim():
        print(f"{variant.name}: another worker of this machine runs it; waiting", flush=True)
        while not workspace.claim():
            time.sleep(WAIT_SECONDS)
    started = time.monotonic()
    text, code = work(study, variant, workspace)
    print(f"espalier: worker: {variant.name}: {text.format(seconds=time.monotonic() - started)}", flush=True)
    return code


def find_variant(study: Study, text: str) -> Variant:
    """Return the experiment that a name, a number from 0 or a label stands for."""
    experiments = study.experiments
    named = [each for each in experiments if each.name == text]
    numbered = experiments[int(text) : int(text) + 1] if text.isascii() and text.isdigit() else []
    labelled = [each for each in experiments if each.label == text]
    found = named or numbered or labelled
    if not found:
        known = ", ".join(each.label for each in experiments[:20])
        raise UserError(
            f"study {study.name} has no variant {text[:100]!r}; expected a number from 0 to {len(experiments) - 1}, "
            f"an experiment's name, or one of: {known}{', ...' if len(experiments) > 20 else ''}"
        )
    return found[0]


def work(study: Study, variant: Variant, workspace: Workspace) -> tuple[str, int]:
    """Run and push the variant; return what happened and the exit code."""
    needed = study.needs(variant)
    there = fetch_experiments(REMOTE, [variant, *([needed] if needed else [])])
    if variant.name in there:
        discard(workspace.folder)
        return "is there already", 0
    os.environ["DVC_SITE_CACHE_DIR"] = str(workspace.site_cache)
    reference = reference_of(workspace.baseline, variant.name)
    if not workspace.has(reference):
        code = run_experiment(workspace, there.get(needed.name) if needed else None)
        made = workspace.has(reference)
        if not made:  # the next attempt goes on from DVC's cache and .dvc/tmp/resume
            discard(workspace.folder)
        if code < 0:
            return f"dvc was killed by signal {-code}; the same command goes on with it", INTERRUPTED
        if not made:
            return f"failed: {one_line(workspace.reason())}".replace("{", "{{").replace("}", "}}"), FAILURE
    ours = push_experiment(workspace.project, variant, reference, git("remote", "get-url", REMOTE))
    discard(workspace.folder)
    return ("done in {seconds:.0f} s and pushed" if ours else "another worker pushed it first; its results stand"), 0


def run_experiment(workspace: Workspace, needed: str | None) -> int:
    """Run the experiment to its end, pass its output on, and return its exit code."""
    process = workspace.launch({}, needed)
    try:
        with workspace.log.open(errors="replace") as log:
            while process.poll() is None:
                copy(log)
                time.sleep(0.2)
            copy(log)
    except KeyboardInterrupt:
        os.killpg(process.pid, signal.SIGINT)
        try:
            process.wait(GRACE_SECONDS)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
        raise
    return process.returncode


def copy(log) -> None:
    """Print what is new in the log."""
    sys.stdout.write(log.read())
    sys.stdout.flush()


if __name__ == "__main__":
    run("worker", main, "the same command goes on with it")
