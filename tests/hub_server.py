"""A Hugging Face hub on 127.0.0.1 that serves a few repositories and, on request, misbehaves."""

import hashlib
import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"
REVISIONS = (COMMIT, "main", "refs/convert/parquet")
LARGE = (".safetensors", ".parquet")  # kept as LFS: their hash is sha256


@dataclass
class Hub:
    """What is served, what goes wrong, and what was asked for."""

    models: dict[str, dict[str, bytes]] = field(default_factory=dict)
    datasets: dict[str, dict[str, bytes]] = field(default_factory=dict)
    refused: dict[str, tuple[int, str]] = field(default_factory=dict)  # repository: status, X-Error-Code
    cuts: dict[str, list[int]] = field(default_factory=dict)  # file: bytes after which one answer each breaks off
    after_cut: Callable[[], object] = lambda: None  # called when an answer has broken off
    forged: dict[str, bytes] = field(default_factory=dict)  # file: what is sent in its place
    names: dict[str, str] = field(default_factory=dict)  # file: what its content is called in place of its hash
    commit: str = COMMIT  # what the hub says a revision is
    requests: list[tuple[str, str, str | None]] = field(default_factory=list)  # method, path, Range
    url: str = ""

    def __enter__(self) -> "Hub":
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (Handler,), {"hub": self}))
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_) -> None:
        self.server.shutdown()
        self.server.server_close()


def digest(name: str, content: bytes) -> str:
    """Return the hash that the hub knows a file by."""
    if name.endswith(LARGE):
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()


class Handler(BaseHTTPRequestHandler):
    """The requests that a download consists of: a revision's commit, its files, a file."""

    hub: Hub
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else every answer waits 40 ms for the client's acknowledgement of its headers

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path).strip("/")
        self.hub.requests.append((self.command, path, self.headers.get("Range")))
        api = path.startswith("api/")
        kind = "datasets" if "datasets/" in path else "models"
        path = path.removeprefix("api/").removeprefix(f"{kind}/")
        organisation, name, verb, *rest = [*path.split("/"), "", ""]
        repository = f"{organisation}/{name}"
        files = getattr(self.hub, kind).get(repository)
        revision, inside = split_revision("/".join(rest).strip("/") if verb else "main")
        if repository in self.hub.refused:
            self.answer(*self.hub.refused[repository])
        elif files is None:
            self.answer(404, "RepoNotFound")
        elif not revision:
            self.answer(404, "RevisionNotFound")
        elif api and verb in ("", "revision"):
            self.answer_json({"id": repository, "sha": self.hub.commit})
        elif verb == "tree":
            self.answer_json(listing(inside, files, recursive="recursive=true" in self.path.lower()))
        else:
            self.send_file(inside, files)

    do_HEAD = do_GET  # noqa: N815 - http.server's name

    def send_file(self, name: str, files: dict[str, bytes]) -> None:
        if name not in files:
            return self.answer(404, "EntryNotFound")
        content = self.hub.forged.get(name, files[name])
        start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").split("-")[0])
        headers = {
            "X-Repo-Commit": COMMIT,
            "ETag": f'"{self.hub.names.get(name) or digest(name, files[name])}"',
            "Accept-Ranges": "bytes",
        }
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        cut = self.hub.cuts[name].pop(0) if self.command == "GET" and self.hub.cuts.get(name) else None
        return self.answer(206 if start else 200, headers=headers, body=content[start:], cut=cut)

    def answer_json(self, content: dict | list) -> None:
        self.answer(200, body=json.dumps(content).encode())

    def answer(self, status: int, code: str = "", body: bytes = b"", headers=None, cut: int | None = None) -> None:
        self.send_response(status)
        for key, value in {**(headers or {}), "Content-Length": str(len(body)), "X-Error-Code": code}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[:cut])
        if cut is not None:
            self.hub.after_cut()
            self.close_connection = True

    def log_message(self, *_) -> None:
        """Say nothing."""


def split_revision(path: str) -> tuple[str, str]:
    """Return the revision that `path` begins with, "" if there is none such, and the rest of the path."""
    revision = next((each for each in REVISIONS if f"{path}/".startswith(f"{each}/")), "")
    return revision, path.removeprefix(revision).strip("/")


def listing(folder: str, files: dict[str, bytes], recursive: bool) -> list[dict]:
    """Return the files below `folder`, or the files and folders in it, as the hub lists them."""
    below = {name: content for name, content in files.items() if not folder or name.startswith(f"{folder}/")}
    if recursive:
        return [entry(*file) for file in below.items()]
    depth = folder.count("/") + 2 if folder else 1
    folders = {"/".join(name.split("/")[:depth]) for name in below if name.count("/") >= depth}
    found = [{"type": "directory", "path": name, "oid": digest(name, b"")} for name in sorted(folders)]
    return found + [entry(*file) for file in below.items() if file[0].count("/") < depth]


def entry(name: str, content: bytes) -> dict:
    """Return a file as the hub's tree lists it."""
    known = {"type": "file", "path": name, "size": len(content), "oid": digest(name, content)}
    if name.endswith(LARGE):
        known["lfs"] = {"oid": known["oid"], "size": len(content), "pointerSize": 130}
    return known
