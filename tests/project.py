"""A tiny project in a folder of its own, run by the real dvc and the real stages."""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from filelock import FileLock
from forks import forking_python
from ruamel.yaml import YAML

from stages.common.outputs import remove

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent

NOT_COPIED = ("tests/", "docs/", "benchmarks/", "data/", "models/", "metrics/", "reports/", "dvc.lock")

# The same pipeline, each part as small as it goes.
TINY = {
    "run": {"device": "cpu", "threads": 1, "precision": "float32", "processes": 1, "sharded": False},
    "data": {"source": "python-docs"},
    "base": {
        "source": "train", "vocab_size": 300, "hidden_size": 32, "intermediate_size": 48, "layers": 3, "heads": 4,
        "kv_heads": 2, "window": 32, "batch_size": 4, "steps": 8, "warmup_steps": 2,
    },
    "prune": {
        "method": "taylor", "ratio": 0.5, "ratio_of": "groups", "attention_layers": [1, 3], "mlp_layers": [1, 3],
        "calibration": {"windows": 4, "length": 16},
    },
    "tune": {
        "objective": "next_token", "window": 32, "batch_size": 4, "micro_batch_size": 4, "steps": 6, "warmup_steps": 2,
        "validate_every": 3, "validation_sequences": 4,
    },
    "evaluate": {"sequence_length": 64, "limit": 8, "prompts": ["Return the"], "new_tokens": 4},
    "profile": {"sequence_length": 16, "decode_tokens": 4, "repetitions": 2},
    "report": {"bootstrap_samples": 100},
}  # fmt: skip


@dataclass
class Project:
    """A clone of the project with tiny params."""

    folder: Path

    def run(self, *command: str, check: bool = True) -> subprocess.CompletedProcess:
        """Run a command in the project; its output is stdout. Stages run in forks of one Python, as forks.py says."""
        done = subprocess.run(
            command, cwd=self.folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            env=environment(forking_python()),
        )  # fmt: skip
        if check and done.returncode:
            pytest.fail(f"{' '.join(command)} exited with {done.returncode}:\n{done.stdout[-3000:]}")
        return done

    def set(self, **changes) -> None:
        """Change keys of params.yaml, given as section__key=value."""
        yaml = YAML()
        content = yaml.load(self.folder / "params.yaml")
        for key, value in changes.items():
            *parents, last = key.split("__")
            place = content
            for parent in parents:
                place = place[parent]
            place[last] = value
        yaml.dump(content, self.folder / "params.yaml")

    def commit(self, message: str) -> None:
        """Commit everything that git sees."""
        self.run("git", "add", "-A")
        self.run("git", "commit", "-q", "-m", message)

    def copy(self, folder: Path) -> "Project":
        """Return a copy of the whole project, caches included."""
        shutil.copytree(self.folder, folder, symlinks=True)
        return Project(folder)

    def hashes(self) -> dict[str, str]:
        """Return the hash of every output that must not differ between runs: all but times and what shows them."""
        lock = YAML(typ="safe").load(self.folder / "dvc.lock")
        return {
            out["path"]: out["md5"]
            for name, stage in lock["stages"].items()
            if not name.startswith(("profile", "report"))
            for out in stage["outs"]
        }


def environment(python: Path = BIN / "python") -> dict[str, str]:
    """Return the environment of a user's shell with the folder of `python` first on PATH, and .venv/bin after it."""
    return {
        **{key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"},
        "PATH": os.pathsep.join([str(python.parent), str(BIN), os.environ["PATH"]]),
        "OMP_NUM_THREADS": "1",
        "DVC_NO_ANALYTICS": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        **{f"GIT_{who}_{what}": "tester" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
    }


def ran(output: str) -> list[str]:
    """Return the stages that dvc's output says it ran, without check, which it runs every time."""
    stages = [line.split("'")[1] for line in output.splitlines() if line.startswith("Running stage '")]
    return [stage for stage in stages if stage != "check"]


def new_project(folder: Path, params: dict[str, dict] = TINY) -> Project:
    """Return a git repository with the project's files and params changed to `params`, nothing run yet."""
    list_files = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(list_files, cwd=ROOT, text=True, check=True, stdout=subprocess.PIPE).stdout.splitlines()
    for name in listed:
        if not name.startswith(NOT_COPIED) and (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    project = Project(folder)
    for section, keys in params.items():
        project.set(**{f"{section}__{key}": value for key, value in keys.items()})
    project.run("git", "init", "-q", "-b", "main")
    project.commit("The project")
    return project


@pytest.fixture(scope="session")
def finished(tmp_path_factory, worker_id) -> Project:
    """The tiny project after one `dvc repro`, committed. Tests that change it take a `copy`.

    Whichever of pytest-xdist's workers comes first makes it; each works with a copy of its own.
    """
    common = tmp_path_factory.getbasetemp() if worker_id == "master" else tmp_path_factory.getbasetemp().parent
    made = Project(common / "finished" / "project")
    with FileLock(common / "finished.lock"):
        if not made.folder.is_dir():
            project = new_project(tmp_path_factory.mktemp("first") / "project")
            project.run("dvc", "repro")
            project.commit("First results")
            made.folder.parent.mkdir()
            project.folder.rename(made.folder)
    return made.copy(tmp_path_factory.mktemp("finished") / "project")


@pytest.fixture
def project(finished, tmp_path) -> Project:
    """A copy of the finished project for one test."""
    copied = finished.copy(tmp_path / "project")
    yield copied
    remove(copied.folder)
