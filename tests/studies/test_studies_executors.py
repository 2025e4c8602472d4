"""What a cluster's executors check before a sweep, and what they do with a worker that ends without a result."""

import shutil
import sys
from pathlib import Path

import pytest
from helpers import ROOT
from ruamel.yaml import YAML

from stages.common.errors import UserError
from studies.executors.choose import CLUSTERS, EXECUTORS, new_executor
from studies.executors.remote import LOST, RemoteExecutor
from studies.executors.settings import load_settings
from studies.study import Study, load_study

STUDY = Path("studies/small.yaml")


class Scripted(RemoteExecutor):
    """A cluster whose workers end with the codes in `codes`, one after the other."""

    jobs = 2

    def connect(self) -> str:
        """Return the line."""
        return "a cluster"

    def submit(self, runs) -> None:
        """Count what is submitted."""
        self.submitted = [*getattr(self, "submitted", []), *(run.variant.name for run in runs)]
        for run in runs:
            run.ticket = len(self.submitted)

    def exit_code(self, run) -> int | None:
        """Return the next code and write the worker's last line."""
        run.log.write_text(f"espalier: worker: {run.variant.name}: failed: prune: no\n")
        return self.codes.pop(0)

    def cancel(self, run) -> None:
        """There is nothing to cancel."""


@pytest.fixture
def project(stub_project, tmp_path, monkeypatch):
    """A stub project with both remotes, and that as the working folder."""
    project = stub_project.copy(tmp_path / "project")
    project.run("git", "init", "-q", "--bare", str(tmp_path / "bare.git"))
    project.run("git", "remote", "add", "origin", str(tmp_path / "bare.git"))
    project.run("dvc", "remote", "add", "--local", "-d", "storage", str(tmp_path / "storage"))
    monkeypatch.chdir(project.folder)
    return project


def executor_of(project, codes=()) -> Scripted:
    commit = project.run("git", "rev-parse", "HEAD").stdout.strip()
    executor = Scripted(STUDY, load_study(STUDY), commit, load_settings())
    executor.codes = list(codes)
    return executor


@pytest.mark.slow
def test_a_sweep_tries_both_remotes_and_says_so_in_a_line_each(project, tmp_path, capsys, monkeypatch):
    executor = executor_of(project)
    executor.prepare()
    lines = capsys.readouterr().out.splitlines()
    commit = executor.baseline
    assert lines == [
        f"git remote origin ({tmp_path / 'bare.git'}): writable, and has commit {commit[:7]}",
        f"DVC remote storage ({tmp_path / 'storage'}): writable",
        "a cluster",
    ]
    assert f"refs/espalier/{commit}" in project.run("git", "ls-remote", "origin").stdout
    assert list((tmp_path / "storage").iterdir()) == []
    arguments = executor.arguments(executor.study.variants[0])
    assert arguments[arguments.index("--remote") + 1] == str(tmp_path / "storage")

    refusals = []
    for spoil in (
        lambda: (project.folder / STUDY).write_text("grid: {prune.ratio: [0.1]}\n"),
        lambda: project.run("git", "checkout", "-q", str(STUDY)) and shutil.rmtree(tmp_path / "bare.git"),
        lambda: project.run("git", "remote", "rename", "origin", "hub"),
    ):
        spoil()
        with pytest.raises(UserError) as refused:
            executor.prepare()
        refusals.append(str(refused.value))
    assert refusals[0] == "studies/small.yaml is not as in the last commit, where workers read it; commit it first"
    assert refusals[1].startswith("git remote origin (") and "cannot be written: fatal: " in refusals[1]
    assert refusals[2].endswith("git_remote = origin is no remote of this repository; expected one of: hub")

    project.run("git", "init", "-q", "--bare", str(tmp_path / "bare.git"))
    project.run("git", "remote", "rename", "hub", "origin")
    project.run("dvc", "remote", "modify", "--local", "storage", "url", str(project.folder / "params.yaml"))
    with pytest.raises(UserError, match="DVC remote storage cannot be written: "):
        executor.prepare()
    monkeypatch.setitem(sys.modules, "dvc_ssh", None)
    project.run("dvc", "remote", "modify", "--local", "storage", "url", "ssh://nowhere/models")
    with pytest.raises(UserError, match=r"DVC remote storage: ssh .* requires 'dvc-ssh' .*; `make ssh` installs it"):
        executor.prepare()
    project.run("dvc", "remote", "remove", "--local", "storage")
    with pytest.raises(UserError, match="there is no DVC remote to carry the models; `dvc remote add"):
        executor.prepare()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("codes", "submissions", "reason"),
    [
        ([None, LOST, 130, LOST, LOST], 4, "its worker died 4 times; its last line: prune: no"),
        ([1], 1, "prune: no"),
        ([LOST, 2], 2, "prune: no"),
        ([0], 1, "prune: no; the same command fetches it, since here it is not on the git remote"),
    ],
)
def test_a_worker_that_dies_is_started_again_and_one_that_fails_is_not(
    project, monkeypatch, codes, submissions, reason
):
    monkeypatch.setattr("studies.executors.remote.POLL_SECONDS", 0)
    executor = executor_of(project, codes)
    run = executor.run_of(executor.study.variants[0])
    assert run.claim() and not executor.run_of(run.variant).claim()
    with executor.batch():
        run.start(None)
        assert not run.ended()
    for _ in codes[:-1]:
        assert not run.ended()
    assert run.ended() and not run.collect()
    assert executor.submitted == [run.variant.name] * submissions
    assert run.reason() == reason


@pytest.mark.parametrize("name", sorted(CLUSTERS))
def test_a_missing_package_is_one_line_that_says_what_installs_it(monkeypatch, name):
    package = {"ray": "ray", "slurm": "submitit"}[name]
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules, CLUSTERS[name][0], raising=False)
    with pytest.raises(UserError) as refused:
        new_executor(name, STUDY, Study("small", [], []), "1" * 40, None, [])
    expected = f"EXECUTOR={name} needs the package {package}; `make {name}` installs it (requirements-{name}.txt)"
    assert str(refused.value) == expected
    assert f"{package}==" in (ROOT / f"requirements-{name}.txt").read_text()
    assert name in EXECUTORS
    with pytest.raises(UserError, match=f"for EXECUTOR={name} set {name}.gpus in cluster.yaml"):
        new_executor(name, STUDY, Study("small", [], []), "1" * 40, None, ["0"])


def test_a_mistake_in_cluster_yaml_is_one_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    content = YAML(typ="safe").load(ROOT / "cluster.yaml")
    with pytest.raises(UserError, match=r"cluster.yaml is missing; `git checkout HEAD -- cluster.yaml`"):
        load_settings()
    for section, key, value in (("slurm", "minutes", 0), ("ray", "gpu", 1), ("slurm", "partition", 3)):
        wrong = {**content, section: {**content[section], key: value}}
        YAML(typ="safe").dump(wrong, Path("cluster.yaml"))
        with pytest.raises(UserError, match=f"cluster.yaml: {section}.{key}"):
            load_settings()
