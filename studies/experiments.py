"""The experiments of this repository, as git knows them: refs/exps/<first two of the baseline>/<the rest>/<name>."""

import subprocess
import sys
from functools import cache
from pathlib import Path

from stages.common.errors import UserError

# A result is that of the commit's code; a later commit that leaves these alone still has it.
CODE = ("dvc.yaml", "stages", "requirements.txt", "constraints.txt")


def git(*arguments: str, folder: Path | None = None) -> str:
    """Return what git prints, less the last line's end; UserError with its last line where it fails."""
    done = run_git(*arguments, folder=folder)
    if done.returncode:
        reason = done.stderr.strip().splitlines() or ["no reason given"]
        raise UserError(f"git {arguments[0]} failed: {reason[-1]}")
    return done.stdout.rstrip("\n")


def run_git(*arguments: str, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run git and return how it ended; UserError where it is not installed."""
    command = ["git", "-c", "core.quotePath=false", *arguments]
    try:
        return subprocess.run(command, cwd=folder, text=True, errors="surrogateescape", capture_output=True)
    except FileNotFoundError:
        raise UserError("git is not on PATH, and experiments are its commits; install it") from None


def baseline() -> str:
    """Return the commit that new experiments start from.

    Raises UserError where there is none, or where the work tree's pipeline is not the commit's. A detached HEAD is
    said to be one.
    """
    if run_git("rev-parse", "-q", "--git-dir").returncode:
        raise UserError("this is no git repository, and experiments are commits; run `git init` and commit the project")
    if run_git("rev-parse", "-q", "--verify", "HEAD").returncode:
        raise UserError("there is no commit yet, and experiments start from one; run `git add -A && git commit` first")
    changed = [line[3:] for line in git("status", "--porcelain", "--", "params.yaml", *CODE).splitlines()]
    if changed:
        raise UserError(
            f"uncommitted changes in {', '.join(changed)}: experiments start from the last commit, which lacks them; "
            "commit them or stash them first"
        )
    head = git("rev-parse", "HEAD")
    if run_git("symbolic-ref", "-q", "HEAD").returncode:
        print(
            f"HEAD is detached: the experiments belong to commit {head[:7]}; `git switch -c NAME` gives it a branch",
            file=sys.stderr,
        )
    return head


def find_experiments() -> dict[str, str]:
    """Return the commit of every experiment whose code is that of HEAD, by name; HEAD's own where there are several."""
    head, found = git("rev-parse", "HEAD"), {}
    listed = git("for-each-ref", "--format=%(objectname) %(refname)", "refs/exps/").splitlines()
    for commit, reference in (line.split() for line in listed):
        start, name = parse(reference)
        if start and same_code(start, head) and (start == head or name not in found):
            found[name] = commit
    return found


def parse(reference: str) -> tuple[str, str]:
    """Return the baseline and the name of an experiment's reference; nothing for DVC's own references beside them."""
    parts = reference.split("/")
    is_experiment = len(parts) == 5 and len(parts[2]) == 2 and len(parts[3]) == 38
    return (parts[2] + parts[3], parts[4]) if is_experiment else ("", "")


def reference_of(start: str, name: str) -> str:
    """Return the reference of the experiment `name` that starts from commit `start`."""
    return f"refs/exps/{start[:2]}/{start[2:]}/{name}"


@cache
def same_code(one: str, other: str) -> bool:
    """Return whether two commits hold the same pipeline, params left out; a commit that is gone holds none."""
    return not run_git("diff", "--quiet", one, other, "--", *CODE).returncode
