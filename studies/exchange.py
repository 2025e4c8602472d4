"""Experiments on their way between machines: commits by a git remote, models and details by a DVC remote.

The data goes before the commit that names it, so an experiment on the git remote is complete. `dvc exp push` alone
pushes the commit first, and a worker killed between the two would leave one whose models are nowhere.
"""

import os
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import chdir, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from dvc.repo import Repo
from dvc.stage import Stage

from stages.common.errors import UserError, one_line
from stages.common.params import FOLDERS
from studies.experiments import find_experiments, parse
from studies.git import git, run_git
from studies.study import Variant
from studies.worker import hidden, reason
from studies.workspace import stages_of

ATTEMPTS, PAUSE_SECONDS = 3, 2
MEMORY = "DVC_SITE_CACHE_DIR"
MEASURED = ("metrics/", "data/tasks")


def remote_references(remote: str, names: Iterable[str], folder: Path | None = None) -> dict[str, str]:
    """Return the commits of the experiments called `names` on a git remote, by reference."""
    wanted = set(names)
    listed = (line.split() for line in git("ls-remote", remote, "refs/exps/*", folder=folder).splitlines())
    return {reference: commit for commit, reference in listed if parse(reference)[1] in wanted}


def fetch_experiments(remote: str, variants: list[Variant]) -> dict[str, str]:
    """Fetch the variants' experiments from the git remote; return the commits of those that are there, by name."""
    there = remote_references(remote, [variant.name for variant in variants])
    known = set(git("for-each-ref", "--format=%(refname)", "refs/exps/").splitlines())
    new = [f"+{reference}:{reference}" for reference in there if reference not in known]
    if new:
        git("fetch", "-q", "--no-tags", remote, *new)
    commits = set(there.values())
    return {name: commit for name, commit in find_experiments(variants).items() if commit in commits}


def offer_experiments(remote: str, variants: list[Variant]) -> None:
    """Push those of the variants' experiments that are here and not on the git remote, for workers to start from."""
    there = {parse(reference)[1] for reference in remote_references(remote, [variant.name for variant in variants])}
    here = find_experiments(variants)
    for variant in variants:
        if variant.name in here and variant.name not in there:
            found = git("for-each-ref", f"--points-at={here[variant.name]}", "--format=%(refname)", "refs/exps/")
            reference = next(each for each in found.splitlines() if parse(each)[1] == variant.name)
            push_experiment(Path.cwd(), variant, reference, remote)
            print(f"{variant.label}: pushed, since others start from it", flush=True)


def push_experiment(project: Path, variant: Variant, reference: str, remote: str) -> bool:
    """Push the experiment at `reference` of the clone `project`; return False if another's came first and stands.

    Raises UserError, one line, where a remote refuses three times.
    """
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return pushed(project, variant, reference, remote)
        except UserError:
            if attempt == ATTEMPTS:
                raise
            time.sleep(PAUSE_SECONDS)
    raise AssertionError("unreachable")


def pushed(project: Path, variant: Variant, reference: str, remote: str) -> bool:
    """Push once, verify what the git remote then has, and return whether that is this experiment."""
    commit = git("rev-parse", reference, folder=project)
    push_data(project, commit, variant.targets)
    # Not by `dvc exp push`, which reads neither GIT_SSH_COMMAND nor OpenSSH's configuration of the machine.
    # With an empty lease git creates a reference and replaces none.
    done = run_git("push", f"--force-with-lease={reference}:", remote, f"{reference}:{reference}", folder=project)
    stands = remote_references(remote, [variant.name], project).get(reference)
    if stands is None:
        why = reason(done.stderr.splitlines())
        raise UserError(f"the git remote {hidden(remote)} did not take {reference}: {hidden(why)}")
    return stands == commit


def push_data(project: Path, commit: str, targets: list[str]) -> None:
    """Push what the stages `targets` and those before them made for the commit to the DVC remote."""
    try:
        with chdir(project), new_repo() as repo:  # at another commit DVC resolves names from the working folder
            # By stage and not by output, since DVC reads dvc.yaml and dvc.lock again for each target.
            stages = sorted({stage.addressing for stage in stages_at(repo, commit, targets)})
            repo.push(targets=stages, revs=[commit], workspace=False)
    except Exception as error:  # each kind of remote raises errors of its own
        raise UserError(f"the DVC remote did not take the data: {one_line(str(error))}") from error


@contextmanager
def new_repo() -> Iterator[Repo]:
    """Yield the repository of the working folder without what DVC remembers between commands of what there is to send.

    Of a push that is killed DVC remembers a part, and the next push then sends that part alone, without an error.
    """
    before = os.environ.pop(MEMORY, None)
    try:
        with TemporaryDirectory() as folder:
            os.environ[MEMORY] = folder
            with Repo() as repo:
                yield repo
    finally:
        os.environ.pop(MEMORY, None)
        if before is not None:
            os.environ[MEMORY] = before


def stages_at(repo: Repo, commit: str, targets: list[str]) -> list[Stage]:
    """Return the stages `targets` and those before them, as they are at a commit."""
    return [stage for _ in repo.brancher(revs=[commit], workspace=False) for stage in stages_of(repo, targets)]


def fetch_metrics(variant: Variant, commit: str) -> None:
    """Bring what the variant's stages measured, its models left out, from the DVC remote into the cache.

    Where that fails a line says so: `make compare` then reads it from the remote.
    """
    folders = {model: str(folder) for model, folder in (FOLDERS | variant.params["models"]).items()}
    paths = [f"{folders[model]}/config.json" for model in {*variant.models, *variant.compared}]
    try:
        with new_repo() as repo:
            outs = [out for stage in stages_at(repo, commit, variant.targets) for out in stage.outs if out.use_cache]
            paths += [out.def_path for out in outs if out.def_path.startswith(MEASURED)]
            repo.fetch(targets=paths, revs=[commit], workspace=False)
    except Exception as error:  # each kind of remote raises errors of its own
        print(f"{variant.label}: its metrics stay on the DVC remote: {one_line(str(error))}", file=sys.stderr)
