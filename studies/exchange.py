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

from dvc.output import Output
from dvc.repo import Repo
from dvc.stage import Stage
from dvc_data.hashfile.db import HashFileDB
from dvc_data.hashfile.hash_info import HashInfo

from stages.common.errors import UserError, one_line
from stages.common.params import FOLDERS
from studies.experiments import find_experiments, parse
from studies.git import git, run_git
from studies.study import Variant
from studies.worker import hidden, reason
from studies.workspace import MEMORY, stages_of

ATTEMPTS, PAUSE_SECONDS = 3, 2
SITE_CACHE = "DVC_SITE_CACHE_DIR"
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
            outs = (out for stage in stages_at(repo, commit, targets) for out in stage.outs)
            for remote, objects in objects_of((out, None) for out in outs).items():
                if repo.cloud.push(objects, odb=remote).failed:
                    raise UserError("some files were not pushed")
    except Exception as error:  # each kind of remote raises errors of its own
        raise UserError(f"the DVC remote did not take the data: {one_line(str(error))}") from error


@contextmanager
def new_repo() -> Iterator[Repo]:
    """Yield the repository of the working folder without what DVC remembers between commands of what there is to send.

    Of a push that is killed DVC remembers a part, and the next push then sends that part alone, without an error.
    """
    before = os.environ.pop(SITE_CACHE, None)
    try:
        with TemporaryDirectory(dir=MEMORY) as folder:
            os.environ[SITE_CACHE] = folder
            with Repo() as repo:
                yield repo
    finally:
        os.environ.pop(SITE_CACHE, None)
        if before is not None:
            os.environ[SITE_CACHE] = before


def stages_at(repo: Repo, commit: str, targets: list[str]) -> Iterator[Stage]:
    """Yield the stages `targets` and those before them at a commit; meanwhile the repository is at it."""
    for _ in repo.brancher(revs=[commit], workspace=False):
        yield from stages_of(repo, targets)


def fetch_metrics(variant: Variant, commit: str) -> None:
    """Bring what the variant's stages measured, its models left out, from the DVC remote into the cache.

    Where that fails a line says so: `make compare` then reads it from the remote.
    """
    folders = {model: str(folder) for model, folder in (FOLDERS | variant.params["models"]).items()}
    configs = {folders[model]: "config.json" for model in {*variant.models, *variant.compared}}
    try:
        with new_repo() as repo:
            outs = (out for stage in stages_at(repo, commit, variant.targets) for out in stage.outs)
            wanted = (out for out in outs if out.def_path in configs or out.def_path.startswith(MEASURED))
            for remote, objects in objects_of((out, configs.get(out.def_path)) for out in wanted).items():
                missing = {each for each in objects if not repo.cache.local.exists(each.value)}
                repo.cloud.pull(missing, odb=remote)
                for each in missing:
                    if not repo.cache.local.exists(each.value):
                        raise UserError(f"{each.obj_name} is not there")
    except Exception as error:  # each kind of remote raises errors of its own
        print(f"{variant.label}: its metrics stay on the DVC remote: {one_line(str(error))}", file=sys.stderr)


def objects_of(wanted: Iterable[tuple[Output, str | None]]) -> dict[HashFileDB | None, set[HashInfo]]:
    """Return the files of outputs, or the one named beside an output, by DVC remote; None is the default one.

    By file, since `dvc push` and `dvc fetch` read dvc.yaml and dvc.lock again for each target. Raises UserError for a
    folder whose list of files is neither in the cache nor on the remote.
    """
    found: dict[HashFileDB | None, set[HashInfo]] = {}
    for out, file in wanted:
        if not out.use_cache or not out.can_push:
            continue
        if out.is_dir_checksum and not out.get_dir_cache():  # else DVC would ask what to do
            raise UserError(f"{out.def_path} is not there")
        path = out.fs.join(out.fs_path, file) if file else None
        for remote, objects in out.get_used_objs(filter_info=path).items():
            found.setdefault(remote, set()).update(objects)
    return found
