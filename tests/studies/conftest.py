"""Projects whose stages are `stub_stage`, run by the real dvc."""

import shutil
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
SWEEP = ("python", "-m", "studies.sweep", "studies/small.yaml")


@pytest.fixture
def no_figures(monkeypatch) -> None:
    """Leave a report without its figures, which take seconds, where a test reads the text alone."""
    monkeypatch.setattr("studies.compare.draw_all", lambda *arguments: [])


@pytest.fixture(scope="session")
def stub_project(tmp_path_factory) -> Project:
    """A committed project that nothing has been run in. Tests take a `copy`."""
    project = new_project(tmp_path_factory.mktemp("stub") / "project")
    stub = Path(__file__).with_name("stub_stage.py")
    for stage in STAGES:
        shutil.copy(stub, project.folder / "stages" / stage / "__main__.py")
    pipeline = YAML().load(project.folder / "dvc.yaml")
    for stage in set(pipeline["stages"]) - {"check", *STAGES}:
        del pipeline["stages"][stage]
    YAML().dump(pipeline, project.folder / "dvc.yaml")
    (project.folder / "studies/small.yaml").write_text(STUDY)
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
