"""Whether the git remote and the DVC remote can be written, tried before a sweep starts, and how workers reach them."""

import uuid
from pathlib import Path

from dvc.repo import Repo

from stages.common.errors import UserError, one_line
from studies.git import git, run_git
from studies.worker import STORAGE, hidden
from studies.worker import reason as reason_of


def check_git(remote: str, commit: str) -> str:
    """Give the git remote the commit, so that workers can fetch it; return a line, or raise UserError."""
    url = repository_url(remote)
    done = run_git("push", "-q", remote, f"{commit}:refs/espalier/{commit}")
    if done.returncode:
        why = reason_of(done.stderr.strip().splitlines())
        raise UserError(f"git remote {remote} ({hidden(url)}) cannot be written: {why}")
    return f"git remote {remote} ({hidden(url)}): writable, and has commit {commit[:7]}"


def repository_url(remote: str) -> str:
    """Return the remote's URL, a folder's as an absolute path; UserError if there is no such remote."""
    done = run_git("remote", "get-url", remote)
    if done.returncode:
        known = ", ".join(git("remote").split()) or "none; `git remote add origin URL` adds one"
        raise UserError(
            f"cluster.yaml: git_remote = {remote} is no remote of this repository; expected one of: {known}"
        )
    url = done.stdout.strip()
    return str(Path(url).absolute()) if Path(url).is_dir() else url


def check_storage() -> str:
    """Write, read and remove a file on the DVC remote; return a line, or raise UserError."""
    content = uuid.uuid4().hex
    with Repo() as repo:
        name = repo.config["core"].get("remote")
        if not name:
            raise UserError("there is no DVC remote to carry the models; `dvc remote add --local -d NAME URL` adds one")
        url = str(repo.config["remote"].get(name, {}).get("url"))
        try:
            remote = repo.cloud.get_remote(name)
            file = remote.fs.join(remote.path, f"espalier-check-{content}")
            remote.fs.makedirs(remote.path, exist_ok=True)
            remote.fs.pipe_file(file, content.encode())
            read = remote.fs.cat_file(file)
            remote.fs.remove(file)
        except ImportError as error:  # a package for this kind of remote is missing, and the error names it
            kind = url.partition("://")[0]
            install = f"; `make {kind}` installs it" if kind in STORAGE else ""
            raise UserError(f"DVC remote {name}: {one_line(str(error))}{install}") from error
        except Exception as error:  # each kind of remote raises errors of its own
            raise UserError(f"DVC remote {name} cannot be written: {one_line(str(error))}") from error
        if read != content.encode():
            raise UserError(f"DVC remote {name} does not give back what was written to it")
        return f"DVC remote {name} ({hidden(url if '://' in url else remote.path)}): writable"


def storage_beside_commit(commit: str) -> str | None:
    """Return the URL of the DVC remote where the commit's .dvc/config does not name it, but this machine's does."""
    if "remote =" in run_git("show", f"{commit}:./.dvc/config").stdout:
        return None
    with Repo() as repo:
        url = str(repo.config["remote"][repo.config["core"]["remote"]]["url"])
    return str(Path(url).absolute()) if "://" not in url else url
