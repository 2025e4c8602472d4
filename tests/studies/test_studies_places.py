"""Sweeps and DVC in odd places, with odd texts: by the real dvc, with stages that are stubs."""

import subprocess
from pathlib import Path

import pytest
from project import Project
from ruamel.yaml import YAML

pytestmark = pytest.mark.slow

ODD = ["${oc.env:HOME}", "${prune.ratio}", "\\${x}", "a'b\"c\\", "\n 😀 \t\x07\x85\u2028 # end ", "null", "[a, {b: c}]"]
FOLDER = "my 'odd' model;touch PWNED;`x`$(touch PWNED)"


def prompts_at(project, commit: str) -> list[str]:
    """Return evaluate.prompts of params.yaml at a commit, byte for byte."""
    text = subprocess.run(
        ["git", "show", f"{commit}:./params.yaml"], cwd=project.folder, capture_output=True, check=True
    ).stdout
    return YAML(typ="safe").load(text)["evaluate"]["prompts"]


def experiments(project) -> list[str]:
    return project.run("git", "for-each-ref", "--format=%(objectname)", "refs/exps/*/*/small-*").stdout.split()


def test_a_shallow_clone_of_a_repository_with_the_project_in_a_folder_of_it_is_swept(stub_project, tmp_path):
    outer = Project(tmp_path / "outer")
    outer.folder.mkdir()
    inner = stub_project.copy(outer.folder / "my dir üñí")
    inner.run("rm", "-rf", ".git", ".dvc/tmp")
    with (inner.folder / "studies/small.yaml").open("w") as file:
        YAML(typ="safe").dump({"points": [{"set": {"prune.ratio": 0.3, "evaluate.prompts": ODD}}]}, file)
    outer.run("git", "init", "-q", "-b", "main")
    for message in ("One", "Two"):
        (outer.folder / "README").write_text(message)
        outer.commit(message)
    outer.run("git", "clone", "-q", "--depth", "1", outer.folder.as_uri(), str(tmp_path / "clone"))
    project = Project(tmp_path / "clone/my dir üñí")
    project.run("python", "-m", "studies.sweep", "studies/small.yaml")
    assert len(experiments(project)) == 2
    assert [prompts_at(project, commit) for commit in experiments(project)] == [ODD, ODD]
    project.run("python", "-m", "studies.compare", "studies/small.yaml")
    assert "None differs from its source" in (project.folder / "reports/small/study.md").read_text()
    assert "2 experiments need" in project.run("python", "-m", "studies.gc").stdout


def test_text_given_by_set_param_stays_text_where_a_backslash_says_so(stub_project, tmp_path):
    project = stub_project.copy(tmp_path / "project")
    setting = r"""evaluate.prompts=['\${oc.env:HOME}','it\'s "quoted"']"""
    project.run("dvc", "exp", "run", "-n", "small-text", "-S", setting, "evaluate@base")
    (commit,) = experiments(project)
    assert prompts_at(project, commit) == ["${oc.env:HOME}", 'it\'s "quoted"']


def test_a_folder_of_any_name_is_measured_and_nothing_in_it_is_executed(stub_project, tmp_path):
    project = stub_project.copy(tmp_path / "project")
    (project.folder / FOLDER).mkdir()
    (project.folder / FOLDER / "config.json").write_text("{}")
    project.set(models={"odd": FOLDER})
    project.run("dvc", "repro", "profile@odd")
    assert (project.folder / "metrics/profile/odd.json").is_file()
    for key, folder in (("odd", "gone;touch PWNED"), ("x;touch PWNED", FOLDER)):
        project.set(models={key: folder})
        done = project.run("dvc", "repro", f"profile@{key}", check=False)
        (line,) = [line for line in done.stdout.splitlines() if line.startswith("espalier: ")]
        assert done.returncode and line.startswith("espalier: check: ")
        project.run("dvc", "repro", "-s", f"profile@{key}", check=False)
    assert not list(Path(project.folder).rglob("PWNED"))
