"""A change of the code makes an experiment stale where a stage of its own depends on it, and nowhere else."""

import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from helpers import ROOT

from stages.common.params import FOLDERS
from studies.code import LIBRARIES, code_files, needed_stages, same_code

TARGETS = {
    model: tuple(f"{stage}@{each}" for stage in ("evaluate", "profile") for each in models)
    for model, models in (
        ("base", ["base"]),
        ("pruned", ["base", "pruned"]),
        ("tuned", ["base", "pruned", "tuned"]),
        ("exported", ["base", "pruned", "pruned-gguf-q8_0"]),
    )
}
THREE = {model: str(folder) for model, folder in FOLDERS.items()}
MODELS = dict.fromkeys(TARGETS, THREE) | {
    "exported": THREE | {"pruned-gguf-q8_0": "models/export/pruned-gguf-q8_0"},
}


def commit() -> str:
    git = ["git", "-c", "user.name=tester", "-c", "user.email=tester"]
    subprocess.run([*git, "add", "-A"], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "A change"], check=True)
    return subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def start(tmp_path, monkeypatch) -> str:
    """The commit of a repository with the pipeline's files."""
    monkeypatch.chdir(tmp_path)
    subprocess.run(["git", "init", "-q"], check=True)
    for name in ("dvc.yaml", *LIBRARIES):
        shutil.copy(ROOT / name, name)
    shutil.copytree(ROOT / "stages", "stages", ignore=shutil.ignore_patterns("__pycache__"))
    return commit()


def stale(start: str) -> set[str]:
    """Return which experiments the work tree's change makes stale."""
    now = commit()
    same_code.cache_clear()
    return {
        model for model, targets in TARGETS.items() if not same_code(start, now, targets, tuple(MODELS[model].items()))
    }


def change(path: str, old: str = "", new: str = "# changed\n") -> None:
    text = Path(path).read_text()
    assert old in text
    Path(path).write_text(text.replace(old, new) if old else text + new)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("stages/report/__main__.py", set()),
        ("stages/check/sections.py", set()),
        ("stages/common/errors.py", set()),
        ("stages/data/prose.py", set(TARGETS)),
        ("stages/models/checkpoint.py", set(TARGETS)),
        ("stages/evaluate/perplexity.py", set(TARGETS)),
        ("stages/prune/families.py", {"pruned", "tuned", "exported"}),
        ("stages/tune/lora.py", {"tuned", "exported"}),  # an export is checked against every model's metrics
        ("stages/export/verify.py", {"exported"}),
        ("constraints.txt", set(TARGETS)),
    ],
)
def test_a_file_makes_stale_what_was_made_by_it(start, path, expected):
    change(path)
    assert stale(start) == expected


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("desc: The model to prune", "desc: The base", set()),
        ("python -m stages.report", "python -m stages.report --new", set()),
        ("python -m stages.prune\n", "python -m stages.prune --new\n", {"pruned", "tuned", "exported"}),
        ("        - profile\n", "        - profile\n        - evaluate.seed\n", set(TARGETS)),
    ],
)
def test_a_stage_of_the_pipeline_makes_stale_what_it_is_needed_for(start, old, new, expected):
    change("dvc.yaml", old, new)
    assert stale(start) == expected


def test_a_commit_without_a_pipeline_has_no_code_in_common(start):
    Path("dvc.yaml").write_text("stages: [")
    assert stale(start) == set(TARGETS)
    assert not same_code(start, "0" * 40, TARGETS["base"], tuple(THREE.items()))


def test_the_code_is_what_the_needed_stages_depend_on_and_do_not_make():
    pipeline = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    stages = needed_stages(pipeline, TARGETS["pruned"], THREE)
    assert set(stages) == {"check", "data", "base", "prune", *TARGETS["pruned"]}
    deps = {dep for stage in stages.values() for dep in stage["deps"] or [] if dep.startswith("stages/")}
    assert set(code_files(stages)) == deps
