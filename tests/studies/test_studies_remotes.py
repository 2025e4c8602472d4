"""Git and DVC remotes over ssh and in S3, on real servers of this machine.

Git over ssh needs sshd alone. The rest, DVC's, is run by `make test-cluster`.
"""

import subprocess
import sys
from types import SimpleNamespace

import clusters
import pytest
import remotes
from helpers import ROOT
from project import environment

from stages.common.errors import UserError
from studies import exchange
from studies.executors.checks import check_git

NAME = "small-base-1234567"
CHECK = """
from stages.common.stage import run
from studies.executors.checks import check_git, check_storage
run("sweep", lambda: print(check_git("origin", "{commit}"), check_storage(), sep="\\n"))
"""


SERVERS = {"ssh": remotes.ssh_server, "s3": remotes.s3_server}
REFUSED = {
    "ssh": [{"HOME": "/nowhere"}],  # without a key, and a host of that name
    "s3": [{"AWS_SECRET_ACCESS_KEY": "wrong"}, {"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}],
}


@pytest.mark.slow
def test_an_experiment_is_pushed_over_ssh_once_and_a_refusal_is_one_line(tmp_path, monkeypatch):
    if reason := clusters.missing("git over ssh"):
        pytest.skip(reason)
    variables = environment()
    for name in [name for name in variables if name.startswith("GIT_")]:
        monkeypatch.setenv(name, variables[name])
    monkeypatch.setattr(exchange, "push_data", lambda *_: None)
    monkeypatch.setattr(exchange, "ATTEMPTS", 1)
    project, bare = tmp_path / "project", tmp_path / "bare.git"

    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=project, check=True, text=True, capture_output=True).stdout

    subprocess.run(["git", "init", "-q", str(project)], check=True)
    git("init", "-q", "--bare", str(bare))
    commits = [git("commit-tree", "-m", text, git("mktree").strip()).strip() for text in ("ours", "theirs")]
    reference = f"refs/exps/{commits[0][:2]}/{commits[0][2:]}/{NAME}"
    monkeypatch.chdir(project)
    with remotes.ssh_server(tmp_path / "ssh") as (url, login):
        monkeypatch.setenv("GIT_SSH_COMMAND", login["GIT_SSH_COMMAND"])
        git("remote", "add", "origin", f"{url}{bare}")
        line = check_git("origin", commits[0])
        assert line == f"git remote origin (ssh://cluster{bare}): writable, and has commit {commits[0][:7]}"

        def push(commit: str) -> bool:
            git("update-ref", reference, commit)
            return exchange.push_experiment(project, SimpleNamespace(name=NAME, targets=[]), reference, f"{url}{bare}")

        assert [push(commit) for commit in (commits[0], commits[0], commits[1])] == [True, True, False]
        assert git("ls-remote", str(bare), reference).split() == [commits[0], reference]
        git("push", "-q", "origin", f":{reference}")
        (bare / "hooks").mkdir(exist_ok=True)
        hook = bare / "hooks/pre-receive"
        hook.write_text("#!/bin/sh\necho the disk is full >&2; exit 1\n")
        hook.chmod(0o755)
        with pytest.raises(UserError) as refused:
            push(commits[1])
        assert str(refused.value) == (
            f"the git remote ssh://cluster{bare} did not take {reference}: remote: the disk is full"
        )
        monkeypatch.setenv("GIT_SSH_COMMAND", login["GIT_SSH_COMMAND"] + " -o PreferredAuthentications=none")
        for attempt in (lambda: push(commits[1]), lambda: check_git("origin", commits[0])):
            with pytest.raises(UserError, match=r": \w+@127.0.0.1: Permission denied \(publickey"):
                attempt()


@pytest.mark.slow
@pytest.mark.cluster
@pytest.mark.parametrize("kind", ["ssh", "s3"])
def test_two_machines_that_share_only_remotes_make_each_stage_once(kind, stub_project, tmp_path):
    if reason := clusters.missing(kind):
        pytest.skip(reason)
    project = stub_project.copy(tmp_path / "project")
    project.run("git", "init", "-q", "--bare", str(tmp_path / "bare.git"))
    commit = project.run("git", "rev-parse", "HEAD").stdout.strip()
    with SERVERS[kind](tmp_path / kind) as (url, variables):
        repository = f"{url}{tmp_path}/bare.git" if kind == "ssh" else str(tmp_path / "bare.git")
        storage = f"{url}{tmp_path}/storage" if kind == "ssh" else f"{url}/storage"
        project.run("git", "remote", "add", "origin", repository)
        project.run("dvc", "remote", "add", "--local", "-d", "far", storage)

        def run(*command: str, **changes: str) -> subprocess.CompletedProcess[str]:
            return subprocess.run(
                command, cwd=project.folder, env=environment() | variables | changes, text=True, capture_output=True
            )

        lines = run("python", "-c", CHECK.format(commit=commit)).stdout.splitlines()
        assert lines == [
            f"git remote origin ({repository}): writable, and has commit {commit[:7]}",
            f"DVC remote far ({storage}): writable",
        ]
        for changes in REFUSED[kind]:
            refused = run("python", "-c", CHECK.format(commit=commit), **changes)
            (line,) = [line for line in refused.stderr.splitlines() if line.startswith("espalier: ")]
            assert line.startswith("espalier: sweep: DVC remote far cannot be written: "), line
            assert refused.returncode == 2 and "Traceback" not in refused.stderr

        def worker(variant: str, machine: str) -> tuple[str, set[str]]:
            """Return the worker's last line and the stages that it ran."""
            options = {"repository": repository, "commit": commit, "remote": storage, "python": sys.executable}
            arguments = [text for key, value in options.items() for text in (f"--{key}", value)]
            done = run(
                "python", str(ROOT / "studies/worker.py"), "studies/small.yaml", variant, *arguments,
                "--folder", str(tmp_path / machine),
            )  # fmt: skip
            stages = {line.split("'")[1] for line in done.stdout.splitlines() if line.startswith("Running stage")}
            assert done.returncode == 0, done.stdout + done.stderr
            return done.stdout.splitlines()[-1], stages

        assert worker("base", "A")[0].endswith(" s and pushed")
        last, stages = worker("taylor-0.3", "B")
        assert last.endswith(" s and pushed") and stages == {"check", "prune", "evaluate@pruned", "profile@pruned"}
