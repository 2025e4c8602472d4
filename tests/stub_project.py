"""Projects whose stages are `stub_stage`, run by the real dvc."""

import shutil
import sys
from pathlib import Path

import pytest
from project import Project, new_project
from ruamel.yaml import YAML

STAGES = ("data", "base", "prune", "tune", "export", "evaluate", "profile")
STUDY = """
grid:
  prune.method: [taylor]
  prune.ratio: [0.3, 0.9] # the second fails
points:
  - set: {prune.method: taylor, prune.ratio: 0.3}
    models: [pruned, tuned]
"""
LABELS = {"base", "taylor-0.3", "taylor-0.3-tuned"}  # taylor-0.9 fails
SWEEP = ("python", "-m", "studies.sweep", "studies/small.yaml")
RETRIES = 20
COMPARE = ("python", "-m", "studies.compare", "studies/small.yaml")


@pytest.fixture(scope="session")
def stub_project(tmp_path_factory) -> Project:
    """A committed project that nothing has been run in. Tests take a `copy`."""
    return new_stub_project(tmp_path_factory.mktemp("stub") / "project", STUDY)


def new_stub_project(folder: Path, study: str) -> Project:
    """Return a project of stub stages in `folder`, with a study small."""
    project = new_project(folder)
    stub = Path(__file__).with_name("stub_stage.py")
    for stage in STAGES:
        shutil.copy(stub, project.folder / "stages" / stage / "__main__.py")
    pipeline = YAML().load(project.folder / "dvc.yaml")
    for stage in set(pipeline["stages"]) - {"check", *STAGES}:
        del pipeline["stages"][stage]
    YAML().dump(pipeline, project.folder / "dvc.yaml")
    (project.folder / "studies/small.yaml").write_text(study)
    (project.folder / "metrics/evaluate").mkdir(parents=True)
    (project.folder / "metrics/evaluate/tuned.json").write_text('{"prose_ppl": 1}')  # of another model, as HEAD's is
    project.commit("Stages without models")
    return project


@pytest.fixture(scope="session")
def swept(stub_project, tmp_path_factory) -> tuple[Project, str]:
    """The project after an undisturbed sweep of the small study, and what the sweep printed."""
    project = stub_project.copy(tmp_path_factory.mktemp("swept") / "project")
    done = project.run(*SWEEP, "--gpus", "3,5", check=False)
    assert done.returncode == 1, done.stdout
    return project, done.stdout


def experiments(project: Project) -> dict[str, str]:
    """Return the experiments' names by label."""
    lines = project.run("git", "for-each-ref", "--format=%(refname:lstrip=4)", "refs/exps/").stdout.split()
    return {line.removeprefix("small-").rsplit("-", 1)[0]: line for line in lines if line.startswith("small-")}


def tables(project: Project) -> list[bytes]:
    """Return the tables of the study's comparison."""
    project.run(*COMPARE)
    return [(project.folder / f"reports/small/{name}.csv").read_bytes() for name in ("quality", "cost")]


def use_remotes(project: Project, folder: Path, **settings: dict) -> None:
    """Give the project a git remote, a DVC remote and a cluster.yaml for workers on this machine."""
    project.run("git", "init", "-q", "--bare", str(folder / "bare.git"))
    project.run("git", "remote", "add", "origin", str(folder / "bare.git"))
    project.run("dvc", "remote", "add", "--local", "-d", "storage", str(folder / "storage"))
    file = project.folder / "cluster.yaml"
    content = YAML(typ="safe").load(file)
    content |= {"folder": str(folder / "work"), "python": sys.executable, "retries": RETRIES}
    for section, keys in settings.items():
        content[section] |= keys
    YAML(typ="safe").dump(content, file)
