"""Downloads through the real huggingface_hub client from a hub on 127.0.0.1."""

import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import hub_server
import pytest
import transformers
from helpers import ROOT
from hub_server import COMMIT, Hub

from stages.common.hub import bar_class

pytestmark = pytest.mark.slow  # each fetches in a process of its own

CONTENT = bytes(range(256)) * 400
CHUNK = 10 * 2**20  # what the client holds back before it writes
FILES = {"config.json": b'{"model_type": "llama"}', "model.safetensors": CONTENT, "pytorch_model.bin": b"pickle"}
# Without the client's waits before it tries again.
FETCH = """
import sys, time
time.sleep = lambda seconds: None
from stages.common.errors import UserError
from stages.common.hub import fetch
try:
    snapshot = fetch(*sys.argv[1:4], sys.argv[4:])
    print(snapshot.commit, *sorted(file.name for file in snapshot.files))
except UserError as error:
    sys.exit(f"{error}")
"""


@pytest.fixture
def hub():
    with Hub(models={"org/model": dict(FILES)}, datasets={"org/data": {"plain/test-00000.parquet": CONTENT}}) as server:
        yield server


def arguments(
    hub: Hub, home: Path, kind="model", repository="org/model", revision=COMMIT, patterns=("*.json", "*.safetensors"),
    **environment,
) -> dict:  # fmt: skip
    """Return what starts a process that calls `fetch`, its hub `hub` and its cache under `home`."""
    variables = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    variables |= {"PYTHONPATH": str(ROOT), "HF_ENDPOINT": hub.url, "HF_HOME": str(home), **environment}
    command = [sys.executable, "-c", FETCH, kind, repository, revision, *patterns]
    return {"args": command, "env": variables, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}


def fetch(hub: Hub, home: Path, *what, **settings) -> subprocess.CompletedProcess:
    """Call `fetch` in a process of its own."""
    return subprocess.run(**arguments(hub, home, *what, **settings), timeout=120, check=False)


def refusal(done: subprocess.CompletedProcess) -> str:
    """Return the one line of a fetch that failed."""
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    return done.stderr.strip().splitlines()[-1]


def contents(home: Path) -> list[bytes]:
    """Return what the cache holds under its hashes."""
    return [file.read_bytes() for file in home.glob("hub/*/blobs/*")]


def test_model_and_dataset_then_from_the_cache(hub, tmp_path):
    done = fetch(hub, tmp_path, revision="main")
    assert done.stdout.split() == [COMMIT, "config.json", "model.safetensors"], done.stderr
    assert not any("pytorch_model.bin" in path for _, path, _ in hub.requests), "a pickle is never fetched"
    done = fetch(hub, tmp_path, "dataset", "org/data", "main", ["plain/test-*.parquet"])
    assert done.stdout.split() == [COMMIT, "test-00000.parquet"], done.stderr
    assert done.stderr == "", "no bar is drawn in a log"
    hub.requests.clear()
    offline = fetch(hub, tmp_path, HF_HUB_OFFLINE="1")
    assert offline.stdout.split() == [COMMIT, "config.json", "model.safetensors"], offline.stderr
    assert not hub.requests
    assert CONTENT in contents(tmp_path)


@pytest.mark.parametrize(
    ("kind", "terminal", "drawn"), [("model", True, True), ("model", False, False), ("dataset", True, False)]
)
def test_bars_are_drawn_on_a_terminal_for_a_model(monkeypatch, kind, terminal, drawn):
    shown = io.StringIO()
    monkeypatch.setattr(shown, "isatty", lambda: terminal)
    monkeypatch.setattr("sys.stderr", shown)
    transformers.logging.disable_progress_bar()  # as setup_torch does
    with bar_class(kind)(total=1, file=shown, desc="Fetching 1 files", disable=False):  # whatever TQDM_DISABLE says
        pass
    assert ("Fetching 1 files" in shown.getvalue()) is drawn


def test_a_connection_that_breaks_is_taken_up_where_it_broke(hub, tmp_path):
    content = CONTENT * 120
    hub.models["org/model"]["model.safetensors"] = content
    hub.cuts["model.safetensors"] = [CHUNK + 60_000]
    done = fetch(hub, tmp_path)
    assert done.returncode == 0, done.stderr
    ranges = [asked for method, path, asked in hub.requests if method == "GET" and path.endswith(".safetensors")]
    assert ranges == [None, f"bytes={CHUNK}-"]
    assert content in contents(tmp_path)


def test_a_killed_download_leaves_nothing_to_be_taken_for_a_file(hub, tmp_path):
    """The client itself takes nothing up between processes (huggingface_hub issue 4196): only whole files stay."""
    hub.models["org/model"]["model.safetensors"] = CONTENT * 120
    hub.cuts["model.safetensors"] = [CHUNK + 60_000]
    started = subprocess.Popen(**arguments(hub, tmp_path))

    def kill_when_the_other_file_is_there():
        for _ in range(200):
            if any((tmp_path / "hub").glob("*/snapshots/*/config.json")):
                break
            time.sleep(0.05)
        started.kill()

    hub.after_cut = kill_when_the_other_file_is_there
    assert started.wait(timeout=120) == -signal.SIGKILL
    hub.after_cut = lambda: None
    assert sorted(file.name for file in (tmp_path / "hub").glob("*/snapshots/*/*")) == ["config.json"]
    assert "missing from the hub's cache" in refusal(fetch(hub, tmp_path, HF_HUB_OFFLINE="1"))
    hub.requests.clear()
    done = fetch(hub, tmp_path)
    assert done.stdout.split() == [COMMIT, "config.json", "model.safetensors"], done.stderr
    assert [path.split("/")[-1] for method, path, _ in hub.requests if method == "GET" and "resolve" in path] == [
        "model.safetensors"
    ]
    assert CONTENT * 120 in contents(tmp_path)


def test_a_wrong_hash_is_told_and_does_not_stay(hub, tmp_path):
    hub.forged["model.safetensors"] = CONTENT[:-1] + b"!"
    line = refusal(fetch(hub, tmp_path))
    assert f"model org/model at revision {COMMIT}: the hash of model.safetensors differs" in line
    assert contents(tmp_path) == [FILES["config.json"]]
    hub.forged.clear()
    assert fetch(hub, tmp_path).returncode == 0
    assert CONTENT in contents(tmp_path)


def test_another_size_than_announced(hub, tmp_path):
    hub.forged["config.json"] = b"{}"
    hub.models["org/model"]["config.json"] = FILES["config.json"]
    line = refusal(fetch(hub, tmp_path, patterns=["config.json"]))
    assert "the hash of config.json differs" in line or "another size" in line
    assert contents(tmp_path) == []


@pytest.mark.parametrize(
    ("status", "code", "message"),
    [
        (
            401,
            "GatedRepo",
            "access denied (401); accept the terms on the hub and set HF_TOKEN",
        ),
        (
            403,
            "GatedRepo",
            "access denied (403); accept the terms on the hub and set HF_TOKEN",
        ),
        (403, "", "access denied (403)"),
        (401, "RepoNotFound", "not on the hub, or private (401); expected a public name, or a token"),
        (500, "", "the hub answers with status 500"),
    ],
)
def test_refusals(hub, tmp_path, status, code, message):
    hub.refused["org/model"] = (status, code)
    assert f"model org/model at revision {COMMIT}: {message}" in refusal(fetch(hub, tmp_path))
    assert contents(tmp_path) == []


def test_what_is_not_there(hub, tmp_path):
    assert "model org/none at revision main: not on the hub, or private (404)" in refusal(
        fetch(hub, tmp_path, repository="org/none", revision="main")
    )
    assert "model org/model at revision v9: the hub has no such revision (404)" in refusal(
        fetch(hub, tmp_path, revision="v9")
    )
    assert f"dataset org/data at revision {COMMIT} has no file that matches plain/train-*.parquet" in refusal(
        fetch(hub, tmp_path, "dataset", "org/data", patterns=["plain/train-*.parquet"])
    )
    assert "not a repository name" in refusal(fetch(hub, tmp_path, repository="a/b/c"))


def test_without_a_network_and_without_a_cache(hub, tmp_path):
    line = refusal(fetch(hub, tmp_path, HF_HUB_OFFLINE="1"))
    assert "missing from the hub's cache, or incomplete, and HF_HUB_OFFLINE forbids downloads" in line
    assert not hub.requests


def test_a_hub_that_does_not_answer(hub, tmp_path):
    line = refusal(fetch(hub, tmp_path, HF_ENDPOINT="http://127.0.0.1:9"))
    assert "the hub http://127.0.0.1:9 cannot be reached" in line


def test_a_part_in_the_cache_is_no_model(hub, tmp_path):
    assert fetch(hub, tmp_path, patterns=["config.json"]).returncode == 0
    line = refusal(fetch(hub, tmp_path, HF_HUB_OFFLINE="1"))
    assert "missing from the hub's cache, or incomplete" in line


def test_a_pattern_without_a_slash_matches_in_the_top_folder(hub, tmp_path):
    hub.models["org/model"] |= {"original/params.json": b"{}", "original/model.safetensors": CONTENT[:9]}
    for revision in ("main", COMMIT):
        done = fetch(hub, tmp_path, revision=revision)
        assert done.stdout.split() == [COMMIT, "config.json", "model.safetensors"], done.stderr
    assert not any("original" in path for _, path, _ in hub.requests)


OUTSIDE = [
    "../../../token",
    "../../secret",
    "..",
    "/tmp/espalier-outside",
    "a/../../../../token",
    "W/../../token",
    "a b",
]


def test_the_name_of_a_content_is_no_path(hub, tmp_path):
    """The client would read, replace or remove the file of that name."""
    (tmp_path / "hub/models--org--model").mkdir(parents=True)
    kept = {"token": tmp_path / "token", "secret": tmp_path / "hub/models--org--model/secret"}
    for name, file in kept.items():
        file.write_text(name)
    before = {file for file in tmp_path.rglob("*") if "hub" not in file.parts}
    for name in OUTSIDE:
        for file in ("config.json", "model.safetensors"):
            hub.names = {file: name}
            line = refusal(fetch(hub, tmp_path, patterns=[file]))
            assert f"model org/model at revision {COMMIT}: the hub calls a file's content" in line, name
    assert {file for file in tmp_path.rglob("*") if "hub" not in file.parts} == before
    assert all(file.read_text() == name for name, file in kept.items())
    assert not Path("/tmp/espalier-outside").exists()


@pytest.mark.parametrize("commit", ["../../..", "main", "/tmp/espalier-outside", "0" * 39])
def test_the_name_of_a_commit_is_a_hash(hub, tmp_path, commit):
    hub.commit = commit
    assert f"the hub calls a commit {commit!r}; expected a hash" in refusal(fetch(hub, tmp_path, revision="main"))
    assert not list(tmp_path.glob("hub/*/snapshots/*"))


@pytest.mark.parametrize("revision", ["../../../x", "/etc/passwd", "a/../../b", "", "-x"])
def test_a_revision_is_no_path(hub, tmp_path, revision):
    assert "not a revision; expected a commit, branch or tag" in refusal(fetch(hub, tmp_path, revision=revision))
    assert not hub.requests and not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["../x.json", "a/../../x.json", "/x.json", "..\\x.json"])
def test_a_file_is_inside_its_repository(hub, tmp_path, name):
    hub.models["org/model"][name] = b"{}"
    assert f"the hub lists the file {name!r}" in refusal(fetch(hub, tmp_path, patterns=["*.json", "*/*.json"]))
    assert not list(tmp_path.rglob("x.json"))


@pytest.mark.parametrize("oid", ["../../../token", "/tmp/espalier-outside"])
def test_what_the_tree_calls_a_content_is_no_path(hub, tmp_path, oid, monkeypatch):
    """The client takes it for the ETag of a large file when the file comes by Xet."""
    monkeypatch.setattr(hub_server, "digest", lambda name, content: oid)
    assert "the hub calls a file's content" in refusal(fetch(hub, tmp_path))
    assert not list(tmp_path.glob("hub/*/blobs/*"))


def test_a_link_out_of_the_cache_is_not_followed(hub, tmp_path):
    assert fetch(hub, tmp_path).returncode == 0
    (pointer,) = tmp_path.glob("hub/*/snapshots/*/config.json")
    (tmp_path / ("0" * 40)).write_text("kept")
    pointer.unlink()
    pointer.symlink_to(tmp_path / ("0" * 40))
    assert "is a link out of its folder" in refusal(fetch(hub, tmp_path, HF_HUB_OFFLINE="1"))
    assert (tmp_path / ("0" * 40)).read_text() == "kept"


def test_a_content_that_repositories_share_is_checked_by_its_own_hash(hub, tmp_path):
    """A file that came by Xet is a link to a link: its name in the shared store is another hash."""
    assert fetch(hub, tmp_path).returncode == 0
    (pointer,) = tmp_path.glob("hub/*/snapshots/*/model.safetensors")
    blob = pointer.resolve()
    shared = tmp_path / "hub/blobs/ab" / ("ab" * 32)
    shared.parent.mkdir(parents=True)
    blob.rename(shared)
    blob.symlink_to(os.path.relpath(shared, blob.parent))
    done = fetch(hub, tmp_path, HF_HUB_OFFLINE="1")
    assert done.returncode == 0, done.stderr
    shared.write_bytes(CONTENT[:-1] + b"!")
    assert "the hash of model.safetensors differs" in refusal(fetch(hub, tmp_path, HF_HUB_OFFLINE="1"))
    assert not shared.exists() and not blob.is_symlink() and not pointer.is_symlink()
