"""Fetch files from a Hugging Face hub: the only code of the project that uses a network.

HF_ENDPOINT, HF_HOME, HF_TOKEN and HF_HUB_OFFLINE work as huggingface_hub documents them. It also fetches datasets,
since datasets.load_dataset would fetch every split and file, store everything a second time as Arrow, and check
no hash.
"""

import fnmatch
import hashlib
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from stages.common.errors import UserError
from stages.common.hub_names import BadNameError, check_client, is_revision
from stages.models.folder import check_inside

CHUNK = 2**20


@dataclass(frozen=True)
class Snapshot:
    """Files of a repository as they are at one commit."""

    folder: Path
    files: list[Path]

    @property
    def commit(self) -> str:
        """The commit's hash, for any name of the revision."""
        return self.folder.name


class NoSuchFileError(UserError):
    """The repository is there, at that revision, but has none of the files."""


def fetch(kind: Literal["model", "dataset"], repo: str, revision: str, patterns: list[str]) -> Snapshot:
    """Return the files of `repo` at `revision` that match one of `patterns`, downloaded where the cache lacks them.

    Of a model, a pattern without a slash matches in the repository's top folder only: others may lie below.
    A connection that breaks is taken up where it broke. After a killed process, its last file is downloaded again: the
    client, from 1.18 on, takes nothing up that another process left. Every file is checked against the hash that the
    hub gave for it, and lies in the cache. Raises UserError when there is no such repository, revision or file, no
    right to it, no connection, nothing in the cache while offline, a wrong hash, or a name from the hub that is a path;
    what is not whole does not stay in the cache.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, HTTPError, LocalEntryNotFoundError

    what = f"{kind} {repo} at revision {revision}"
    if not is_revision(revision):
        raise UserError(f"{what}: not a revision; expected a commit, branch or tag")
    below = [f"*/{pattern}" for pattern in patterns if "/" not in pattern] if kind == "model" else []
    check_client()
    try:
        folder = Path(snapshot_download(
            repo, repo_type=kind, revision=revision, allow_patterns=patterns, ignore_patterns=below,
            tqdm_class=bar_class(kind),
        ))  # fmt: skip
    except BadNameError as error:
        raise UserError(f"{what}: {error}") from None
    except LocalEntryNotFoundError as error:
        raise UserError(f"{what}: {explain_absence(error)}") from None
    except HfHubHTTPError as error:
        raise UserError(f"{what}: {explain_refusal(error)}") from None
    except HFValidationError:
        raise UserError(f"{what}: not a repository name; expected organisation/name") from None
    except HTTPError as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{what}: the connection was lost ({reason}); run `dvc repro` again") from None
    except OSError as error:
        if "Consistency check failed" not in str(error):
            raise
        raise UserError(
            f"{what}: a file's size differs from the one that the hub reports; run `dvc repro` again"
        ) from None
    names = {path: path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*")) if path.is_file()}
    files = [path for path, name in names.items() if matches(name, patterns) and not matches(name, below)]
    if not files:
        raise NoSuchFileError(f"{what} has no file that matches {', '.join(patterns)}")
    check_inside(folder, files)
    for file in files:
        check_hash(file, what)
    return Snapshot(folder, files)


def bar_class(kind: Literal["model", "dataset"]) -> type[Any]:
    """Return the class of the client's bars. They are drawn on a terminal for a model, whose files may be large.

    Not the client's own class: transformers' bars are off in a stage, and that turns the client's off too.
    """
    from huggingface_hub.constants import HF_HUB_DISABLE_PROGRESS_BARS
    from tqdm import tqdm

    class Hidden(tqdm):
        def __init__(self, *arguments: Any, **settings: Any):
            super().__init__(*arguments, **settings | {"disable": True})

    return tqdm if kind == "model" and sys.stderr.isatty() and not HF_HUB_DISABLE_PROGRESS_BARS else Hidden


def matches(name: str, patterns: list[str]) -> bool:
    """Return whether one of `patterns` matches `name`, by the rules of the hub's client: * also matches /."""
    return any(fnmatch.fnmatch(name, pattern) for pattern in patterns)


def explain_absence(error: Exception) -> str:
    """Return why neither the hub nor the cache has it."""
    from huggingface_hub.constants import ENDPOINT, is_offline_mode
    from huggingface_hub.errors import HfHubHTTPError

    if is_offline_mode():
        return "missing from the hub's cache, or incomplete, and HF_HUB_OFFLINE forbids downloads"
    if isinstance(error.__cause__, HfHubHTTPError):
        return explain_refusal(error.__cause__)
    return f"the hub {ENDPOINT} cannot be reached; missing from the cache, or incomplete"


def explain_refusal(error) -> str:
    """Explain an HTTP status of the hub."""
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    status = error.response.status_code
    if isinstance(error, GatedRepoError) or status == 403:
        return f"access denied ({status}); accept the terms on the hub and set HF_TOKEN"
    if isinstance(error, RevisionNotFoundError):
        return f"the hub has no such revision ({status}); expected one of its commits, branches or tags"
    if isinstance(error, RepositoryNotFoundError) or status == 401:
        return f"not on the hub, or private ({status}); expected a public name, or a token that may read it (HF_TOKEN)"
    return f"the hub answers with status {status}; try again later"


def check_hash(file: Path, what: str) -> None:
    """Raise UserError, and drop the file from the cache, unless it has the hash that the hub gave.

    The cache names a file's content by that hash: sha256 of large files, git's sha1 of the others. Where the file
    system has no symbolic links the name is lost, and nothing is checked.
    """
    if not file.is_symlink():
        return
    blob = file.parent / file.readlink()  # it may be a link itself, into what repositories share
    name, content = blob.name, file.resolve()
    if len(name) not in (40, 64):
        return
    digest = hashlib.sha256() if len(name) == 64 else hashlib.sha1(usedforsecurity=False)
    if len(name) == 40:
        digest.update(f"blob {content.stat().st_size}\0".encode())
    with content.open("rb") as stream:
        while chunk := stream.read(CHUNK):
            digest.update(chunk)
    if digest.hexdigest() != name:
        for path in (file, blob, content):
            path.unlink(missing_ok=True)
        raise UserError(
            f"{what}: the hash of {file.name} differs from the one that the hub reports; the file "
            "was removed; run `dvc repro` again"
        )
