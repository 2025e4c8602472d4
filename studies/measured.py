"""Read the results of a study's experiments through dvc.api, from wherever DVC stores them."""

import json
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from dvc.api import DVCFileSystem

from analysis.params import ReportParams
from analysis.results import FOLDERS, read_chances
from analysis.rows import Result, Row, read_result
from analysis.study_report import StudyReport
from stages.common.errors import UserError
from studies.git import git
from studies.study import Study, Variant


def read_study(study: Study, commits: dict[str, str], params: ReportParams) -> StudyReport:
    """Return the experiments' results: the base, and a row for every method and ratio that has an experiment.

    `commits` are those of the experiments by name. Raises UserError where there is nothing to compare, or where the
    variants do not share one base: the page compares with one.
    """
    there = [variant for variant in study.variants if variant.name in commits]
    bases = {study.base(variant).name for variant in there}
    if not there or not bases <= set(commits):
        raise UserError(
            f"study {study.name}: no variant has been run for the params and the code of this commit; "
            f"`make sweep STUDY=studies/{study.name}.yaml` runs them"
        )
    if len(bases) > 1:
        raise UserError(
            f"study {study.name} has {len(bases)} bases; expected one: data, base, evaluate and profile may not vary"
        )
    first = study.base(there[0])
    base = read_model(first, "base", commits[first.name])
    rows: dict[tuple, Row] = {}
    for variant in there:
        for model in variant.compared:
            measured = read_model(variant, model, commits[variant.name])
            key = json.dumps(variant.varied, sort_keys=True), model
            ratio = variant.params["prune"]["ratio"]
            rows.setdefault(key, Row(method_of(variant), ratio, model, [], base)).runs.append(measured)
    ordered = sorted(rows.values(), key=lambda row: (row.ratio, row.model))
    missing = [variant.label for variant in study.variants if variant.name not in commits]
    chances, tokens = chances_of(commits[first.name]), first.params["profile"]["sequence_length"]
    return StudyReport(study.name, params, base, ordered, missing, chances, tokens)


def method_of(variant: Variant) -> str:
    """Return the label of the method: its name, and the other varied values except the ratio."""
    others = [
        f"{key.split('.')[-1]} {value}"
        for key, value in variant.varied.items()
        if key not in ("prune.method", "prune.ratio")
    ]
    return ", ".join([variant.params["prune"]["method"], *others])


def read_model(variant: Variant, model: str, commit: str) -> Result:
    """Return the results of `model` in the experiment at `commit`."""
    files, project = open_commit(commit)

    def read(path: str) -> bytes:
        try:
            return files.read_bytes(project + path)
        except FileNotFoundError:
            raise UserError(
                f"experiment {variant.name}: {path} is not in DVC's cache; `dvc exp pull` or `dvc pull --rev` brings it"
            ) from None

    return read_result(read, variant.name, model, str((FOLDERS | variant.params["models"])[model]))


@cache  # DVC reads dvc.yaml and dvc.lock anew for each
def open_commit(commit: str) -> tuple[DVCFileSystem, str]:
    """Return the files of a commit, and the prefix of the project's paths: "" or a folder and a slash."""
    project = git("rev-parse", "--show-prefix")
    return DVCFileSystem(rev=commit, subrepos=bool(project)), project


def chances_of(commit: str) -> dict[str, Any]:
    """Return the accuracy of guessing for each task that gives it."""
    files, project = open_commit(commit)
    with TemporaryDirectory() as folder:
        for path in files.find(f"{project}data/tasks"):
            if path.endswith(".yaml"):
                (Path(folder) / Path(path).name).write_bytes(files.read_bytes(path))
        return read_chances(Path(folder))
