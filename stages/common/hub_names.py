"""Check the names that a hub sends before huggingface_hub makes paths of them.

The client names the content of a file in its cache by the ETag that the hub gives for it, and a folder by the commit,
without a check of its own: `../../../token` would be read, replaced, or removed.
"""

import re
from pathlib import PurePosixPath
from typing import Any

HASH = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
CONTENT = re.compile(
    r"[A-Za-z0-9][A-Za-z0-9._+=-]{0,199}"
)  # a hash on the hub itself; some mirrors have names of their own
REVISION = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_./+@-]*")


class BadNameError(Exception):
    """An unsafe name from a hub. Its text is one line."""


def is_revision(name: str) -> bool:
    """Return whether `name` can be a commit, branch or tag, and leads nowhere as a path."""
    return bool(REVISION.fullmatch(name)) and ".." not in name.split("/")


def check_client() -> None:
    """Let huggingface_hub refuse, from now on, an answer with a name that leads out of its cache."""
    from huggingface_hub import set_client_factory
    from huggingface_hub.utils._http import default_client_factory

    def client() -> Any:
        made = default_client_factory()
        made.event_hooks = {**made.event_hooks, "response": [check_answer]}
        return made

    set_client_factory(client)


def check_answer(response: Any) -> None:
    """Raise BadNameError unless the commits, contents and paths in an HTTP answer of a hub are plain names."""
    headers, path = response.headers, response.request.url.path
    check("commit", headers.get("X-Repo-Commit"), HASH)
    if response.is_error:
        return
    if response.request.method == "HEAD":
        content = headers.get("X-Linked-Etag") or headers.get("ETag")
        check("file's content", content and content.lstrip("W/").strip('"'), CONTENT)
    elif "/api/" in path and "/resolve/" not in path:  # not the files themselves, which are too large to read here
        response.read()
        try:
            answer = response.json()
        except ValueError:  # the client says so itself
            return
        if isinstance(answer, dict):
            check("commit", answer.get("sha"), HASH)
        for entry in answer if isinstance(answer, list) else []:
            check_entry(entry)


def check_entry(entry: Any) -> None:
    """Raise BadNameError unless an entry of a repository's tree has a path inside it, and its contents plain names."""
    path, large = str(entry.get("path")), entry.get("lfs") or {}
    if path.startswith("/") or "\\" in path or ".." in PurePosixPath(path).parts:
        raise BadNameError(f"the hub lists the file {path!r}; expected a path inside the repository")
    for content in (large.get("oid"), large.get("sha256"), entry.get("xetHash")):
        check("file's content", content, CONTENT)


def check(what: str, name: Any, pattern: re.Pattern) -> None:
    """Raise BadNameError unless `name` is None or of `pattern`."""
    if name is not None and not (isinstance(name, str) and pattern.fullmatch(name)):
        raise BadNameError(f"the hub calls a {what} {str(name)[:100]!r}; expected a hash")
