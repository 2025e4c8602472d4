"""The code that made an experiment's results: the deps of its stages in dvc.yaml that no stage makes."""

from functools import cache
from pathlib import Path
from typing import Any

import yaml

from studies.git import run_git

LIBRARIES = ("requirements.txt", "constraints.txt")  # other versions may give other results
PARTS = ("cmd", "params", "deps", "outs", "metrics")  # of a stage; its desc changes no result

Stage = dict[str, Any]  # as in dvc.yaml


@cache
def same_code(one: str, other: str, targets: tuple[str, ...], folders: tuple[tuple[str, str], ...]) -> bool:
    """Return whether two commits make the stages `targets` in the same way, params left out.

    `folders` are the models' names and folders, over which dvc.yaml repeats stages. A commit that is gone, or whose
    dvc.yaml cannot be read, makes nothing.
    """
    first, second = (needed_stages(pipeline_at(commit), targets, dict(folders)) for commit in (one, other))
    if not first or first != second:
        return False
    files = [*code_files(first), *LIBRARIES]
    return not run_git("--literal-pathspecs", "diff", "--quiet", one, other, "--", *files).returncode


@cache
def pipeline_at(commit: str) -> dict[str, Stage]:
    """Return the stages in a commit's dvc.yaml; none where it has no readable one."""
    done = run_git("show", f"{commit}:./dvc.yaml")
    try:
        content = yaml.safe_load(done.stdout) if not done.returncode else None
    except yaml.YAMLError:
        return {}
    return content.get("stages") or {} if isinstance(content, dict) else {}


def needed_stages(pipeline: dict[str, Stage], targets: tuple[str, ...], folders: dict[str, str]) -> dict[str, Stage]:
    """Return `targets` and the stages that they depend on, by name."""
    stages = repeated(pipeline, folders)
    needed: dict[str, Stage] = {}
    left = list(targets)
    while left:
        name = left.pop()
        if name in stages and name not in needed:
            needed[name] = {part: stages[name].get(part) for part in PARTS}
            left += [other for other, stage in stages.items() if makes(stage, paths(stages[name], "deps"))]
    return needed


def repeated(pipeline: dict[str, Stage], folders: dict[str, str]) -> dict[str, Stage]:
    """Return the stages with each `foreach` in full: evaluate@base, evaluate@pruned, ..."""
    stages = {}
    for name, stage in pipeline.items():
        if "do" not in stage:
            stages[name] = stage
        else:
            stages |= {f"{name}@{model}": filled(stage["do"], model, folder) for model, folder in folders.items()}
    return stages


def filled(value: Any, model: str, folder: str) -> Any:
    """Return a part of a stage with `${key}` and `${item}` replaced in all its texts."""
    if isinstance(value, dict):
        return {filled(key, model, folder): filled(each, model, folder) for key, each in value.items()}
    if isinstance(value, list):
        return [filled(each, model, folder) for each in value]
    return value.replace("${key}", model).replace("${item}", folder) if isinstance(value, str) else value


def paths(stage: Stage, *parts: str) -> list[Path]:
    """Return the paths of a stage's deps, outs or metrics; an entry is a path, or a path and its options."""
    entries = [entry for part in parts for entry in stage.get(part) or []]
    return [Path(path) for entry in entries for path in (entry if isinstance(entry, dict) else [entry])]


def makes(stage: Stage, wanted: list[Path]) -> bool:
    """Return whether the stage makes one of the paths, a part of one or a folder around one."""
    made = paths(stage, "outs", "metrics")
    return any(out.is_relative_to(path) or path.is_relative_to(out) for out in made for path in wanted)


def code_files(stages: dict[str, Stage]) -> list[str]:
    """Return the deps of the stages that no stage makes."""
    deps = {path for stage in stages.values() for path in paths(stage, "deps")}
    return sorted(str(path) for path in deps if not any(makes(stage, [path]) for stage in stages.values()))
