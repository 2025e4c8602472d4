"""The experiments of this repository, as git knows them: refs/exps/<first two of the baseline>/<the rest>/<name>."""

import os
import sys
from collections.abc import Iterable

from stages.common.errors import UserError
from stages.common.params import FOLDERS
from studies.code import LIBRARIES, same_code
from studies.git import git, run_git
from studies.study import Variant

IDENTITY = ("user.name", "user.email")
PIPELINE = ("params.yaml", "dvc.yaml", "stages", *LIBRARIES)  # what an experiment takes from its commit


def baseline() -> str:
    """Return the commit that new experiments start from.

    Raises UserError where there is none, or where the work tree's pipeline is not the commit's. A detached HEAD is
    said to be one.
    """
    if run_git("rev-parse", "-q", "--git-dir").returncode:
        raise UserError(
            "this is not a git repository, and experiments are commits; run `git init` and commit the project"
        )
    if run_git("rev-parse", "-q", "--verify", "HEAD").returncode:
        raise UserError("there is no commit yet, and experiments start from one; run `git add -A && git commit` first")
    changed = [line[3:] for line in git("status", "--porcelain", "--", *PIPELINE).splitlines()]
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


def check_identity() -> None:
    """Raise UserError unless git names who commits, in its configuration or in the environment."""
    missing = [key for key in IDENTITY if not run_git("config", key).stdout.strip()]
    variables = [f"GIT_{who}_{what}" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")]
    if missing and not all(os.environ.get(variable) for variable in variables):
        commands = " and ".join(f"`git config --global {key} ...`" for key in missing)
        raise UserError(f"git has no {' and no '.join(missing)}, and experiments are commits; run {commands} first")


def find_experiments(variants: Iterable[Variant]) -> dict[str, str]:
    """Return the commits of the variants' experiments by name: those whose code is that of HEAD, HEAD's own first."""
    head, found = git("rev-parse", "HEAD"), {}
    wanted = {variant.name: variant for variant in variants}
    listed = git("for-each-ref", "--format=%(objectname) %(refname)", "refs/exps/").splitlines()
    for commit, reference in (line.split() for line in listed):
        start, name = parse(reference)
        if name in wanted and (start == head or (name not in found and is_current(wanted[name], start, head))):
            found[name] = commit
    return found


def is_current(variant: Variant, start: str, head: str) -> bool:
    """Return whether the commits `start` and `head` have the same code for the variant."""
    folders = {model: str(folder) for model, folder in (FOLDERS | variant.params["models"]).items()}
    return same_code(start, head, tuple(variant.targets), tuple(folders.items()))


def parse(reference: str) -> tuple[str, str]:
    """Return the baseline and the name of an experiment's reference; nothing for DVC's other references."""
    parts = reference.split("/")
    is_experiment = len(parts) == 5 and len(parts[2]) == 2 and len(parts[3]) == 38
    return (parts[2] + parts[3], parts[4]) if is_experiment else ("", "")


def reference_of(start: str, name: str) -> str:
    """Return the reference of the experiment `name` that starts from commit `start`."""
    return f"refs/exps/{start[:2]}/{start[2:]}/{name}"
