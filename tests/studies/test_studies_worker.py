"""`studies.worker` by the real dvc: from nothing but a git repository and a DVC remote to an experiment on both."""

import os
import re
import shlex
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from helpers import ROOT
from project import BIN, Project

from studies import exchange, measured, worker
from studies.git import git
from studies.study import load_study

pytestmark = pytest.mark.slow


@dataclass
class Remotes:
    """A bare git repository and the folder of a DVC remote, and the project that they serve."""

    project: Project
    git: Path
    storage: Path
    commit: str

    def worker(self, variant: str, folder: str, **changes: str):
        """Run the worker's file, alone, as another machine would; `folder` stands for the machine."""
        options = {
            "repository": str(self.git), "commit": self.commit, "remote": str(self.storage),
            "python": str(BIN / "python"), "folder": str(self.git.parent / folder), **changes,
        }  # fmt: skip
        arguments = [text for key, value in options.items() for text in (f"--{key}", value)]
        command = ["python", str(ROOT / "studies/worker.py"), "studies/small.yaml", variant, *arguments]
        elsewhere = Project(self.git.parent)
        done = elsewhere.run(*command, check=False)
        return done.returncode, done.stdout.splitlines()[-1], done.stdout

    def pod(self, number: int):
        """Run the command of the Kubernetes Job in docs/scale.md in an empty folder, without settings of git."""
        pod = self.git.parent / "pod"
        pod.mkdir()
        text = (ROOT / "docs/scale.md").read_text(encoding="utf-8")
        job = yaml.safe_load(re.search(r"^    apiVersion.*?(?=^\S)", text, re.MULTILINE | re.DOTALL)[0])
        (container,) = job["spec"]["template"]["spec"]["containers"]
        folder, python, storage = (shlex.quote(str(path)) for path in (pod / "work", BIN / "python", self.storage))
        command = container["args"][0].replace("demo.yaml", "small.yaml")
        command = command.replace("--folder /work", f"--folder {folder} --python {python} --remote {storage}")
        variables = {"REPOSITORY": str(self.git), "COMMIT": self.commit, "JOB_COMPLETION_INDEX": str(number)}
        assert variables.keys() > {each["name"] for each in container["env"]}
        done = subprocess.run(
            [*container["command"], command], cwd=pod, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            env=variables | {"PATH": f"{BIN}:/usr/bin:/bin", "HOME": str(pod)},
        )  # fmt: skip
        return done.returncode, done.stdout.splitlines()[-1], done.stdout

    def experiments(self) -> set[str]:
        """Return the labels of the experiments on the git remote."""
        lines = self.project.run("git", "ls-remote", str(self.git), "refs/exps/*/small-*").stdout.splitlines()
        return {line.rpartition("/")[2].removeprefix("small-").rpartition("-")[0] for line in lines}


def files_in(folder: Path) -> set[str]:
    """Return the hashes of the files that DVC keeps in a cache or a remote."""
    return {file.parent.name + file.name for file in folder.glob("files/md5/*/*")}


@pytest.fixture
def remotes(stub_project, tmp_path) -> Remotes:
    """Remotes that have the stub project and no experiment."""
    project = stub_project.copy(tmp_path / "project")
    project.run("git", "init", "-q", "--bare", "-b", "main", str(tmp_path / "bare.git"))
    project.run("git", "push", "-q", str(tmp_path / "bare.git"), "main")
    commit = project.run("git", "rev-parse", "HEAD").stdout.strip()
    return Remotes(project, tmp_path / "bare.git", tmp_path / "storage", commit)


def test_a_variant_runs_from_nothing_and_is_on_both_remotes_or_named(remotes, tmp_path, monkeypatch, capsys):
    # A reference of that name leaves no room for any below it.
    blocked = remotes.git / "refs/exps" / remotes.commit[:2] / remotes.commit[2:]
    blocked.parent.mkdir(parents=True)
    blocked.write_text(f"{remotes.commit}\n")
    code, last, output = remotes.worker("0", "machine A")
    assert code == 2 and f"the git remote {remotes.git} did not take refs/exps/" in last, output
    assert "Running stage 'evaluate@base'" in output and remotes.experiments() == set()

    blocked.unlink()  # what is finished is pushed and not run again
    code, last, output = remotes.worker("base", "machine A")
    assert code == 0 and last.startswith("espalier: worker: small-base-") and last.endswith(" s and pushed"), output
    assert "Running stage" not in output
    made, pushed = (files_in(folder) for folder in (remotes.git.parent / "machine A/cache", remotes.storage))
    assert pushed < made and len(made - pushed) == 2  # evaluate's and profile's metrics, which are in git

    # Another machine has none of it, and makes nothing that is on the remote.
    code, last, output = remotes.worker("taylor-0.3", "machine B")
    assert code == 0 and last.endswith(" s and pushed"), output
    ran = {line.split("'")[1] for line in output.splitlines() if line.startswith("Running stage")}
    assert ran == {"check", "prune", "evaluate@pruned", "profile@pruned"}
    assert remotes.experiments() == {"base", "taylor-0.3"}
    assert list((remotes.git.parent / "machine B").rglob("sweep/small-taylor-0.3-*/.git")) == []

    code, last, output = remotes.pod(1)
    assert code == 0 and last.endswith(": is there already"), output

    code, last, output = remotes.worker("taylor-0.9", "machine A")
    assert code == 1, output
    assert last.endswith(": failed: prune: prune.ratio = 0.9 is not allowed; expected less, in this test")
    assert remotes.experiments() == {"base", "taylor-0.3"}

    # A sweep fetches what was measured, and no model.
    project = remotes.project
    project.run("dvc", "remote", "add", "--local", "-d", "storage", str(remotes.storage))
    monkeypatch.chdir(project.folder)
    variant = load_study(Path("studies/small.yaml")).experiments[1]
    (commit,) = exchange.fetch_experiments(str(remotes.git), [variant]).values()
    exchange.fetch_metrics(variant, commit)
    remotes.storage.rename(tmp_path / "away")
    found = measured.read_model(variant, "pruned", commit)
    assert len(found.questions) and found.layers is not None and found.config
    assert capsys.readouterr().err == ""
    cache = project.folder / ".dvc/cache"
    assert max(file.stat().st_size for file in cache.glob("files/md5/*/*")) < 1 << 16  # a model's
    shutil.rmtree(cache)
    exchange.fetch_metrics(variant, commit)
    assert "taylor-0.3: its metrics stay on the DVC remote: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "answer"),
    [
        ({"repository": "/nowhere.git"}, "git clone -q --no-checkout /nowhere.git"),
        ({"commit": "1" * 40}, "git fetch -q origin 1111"),
        ({"project": "docs"}, "--project docs is no DVC project of commit"),
    ],
)
def test_what_keeps_a_worker_from_starting_is_its_last_line(remotes, change, answer):
    code, last, output = remotes.worker("base", "machine A", **change)
    assert code == 2, output
    assert last.startswith("espalier: worker: base: ") and answer in last
    assert not list((remotes.git.parent / "machine A").rglob("*.partial/.git/config.lock"))


def test_a_clone_has_a_committer_and_keeps_what_the_machine_has(remotes, tmp_path, monkeypatch):
    for variable in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(variable)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "gitconfig"))
    (tmp_path / "gitconfig").write_text("[user]\n    email = user@machine\n")
    options = SimpleNamespace(
        repository=str(remotes.git), commit=remotes.commit, project=".", remote=None, folder=tmp_path / "machine"
    )
    clone = worker.prepare_clone(options)
    found = [git("config", key, folder=clone) for key in ("user.name", "user.email")]
    assert found == ["espalier", "user@machine"]


def test_an_environment_is_made_once_and_with_what_its_dvc_remote_needs(tmp_path, monkeypatch):
    commands = []
    monkeypatch.setattr(worker, "run", lambda command, folder: commands.append(command[1:-1]))
    for url in ("/shared/models", "ssh://host/models", "s3://models"):
        project = tmp_path / url.replace("/", "")
        (project / ".dvc").mkdir(parents=True)
        (project / ".dvc/config.local").write_text(f"[remote]\n    url = {url}\n")
        for name in ("requirements.txt", "requirements-ssh.txt", "requirements-s3.txt"):
            (project / name).write_text(name)
        environments = {worker.prepare_environment(project, tmp_path).parent.parent.resolve() for _ in range(2)}
        assert environments == {(project / ".venv").resolve()}
    assert commands == [["setup"], ["setup", "ssh"], ["setup", "s3"]]
    assert len(list(tmp_path.glob("environments/*/ready"))) == 3
