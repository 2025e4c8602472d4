"""All sections of params.yaml and the conditions between them. The one module that imports every stage's params."""

import json
from pathlib import Path
from typing import Any

from analysis.params import ReportParams
from stages.base.params import BaseParams
from stages.common.errors import UserError, shown
from stages.common.params import ModelsParams, RunParams, Section, validate_section
from stages.common.yaml_file import read_yaml
from stages.data.params import DataParams
from stages.data.task_check import check_tasks, lm_eval_tasks
from stages.evaluate.params import EvaluateParams
from stages.export.params import WITHOUT_RANK, ExportParams
from stages.models.families import FAMILIES
from stages.profile.params import ProfileParams
from stages.prune.families import check_family
from stages.prune.params import PruneParams
from stages.prune.ranges import pruned_layers
from stages.prune.sharing import check_shared
from stages.tune.params import TuneParams, check_shares

EXPORTS = "models/export"  # what stage export makes

SECTIONS: dict[str, type[Section]] = {
    "run": RunParams,
    "data": DataParams,
    "base": BaseParams,
    "prune": PruneParams,
    "tune": TuneParams,
    "evaluate": EvaluateParams,
    "export": ExportParams,
    "models": ModelsParams,
    "profile": ProfileParams,
    "report": ReportParams,
}

CONTROL = "models/control"  # the base tuned as the pruned model is


def check_params(content: dict, source: str = "params.yaml") -> dict[str, Any]:
    """Return the sections; UserError for the first that is unknown, missing or invalid, or that does not fit another.

    `source` is what the message says the params came from.
    """
    for name in content:
        if name not in SECTIONS:
            text = name[:100] if isinstance(name, str) else shown(name)
            raise UserError(f"{source}: `{text}` is not a known section; expected one of: {', '.join(SECTIONS)}")
    sections = {name: validate_section(content, name, model, source) for name, model in SECTIONS.items()}
    check_together(sections)
    return sections


def check_together(sections: dict[str, Any]) -> None:
    """Raise UserError if a value of one section contradicts another section."""
    base, prune, data, evaluate = (sections[name] for name in ("base", "prune", "data", "evaluate"))
    if base.source == "train":  # the layers of any other base are known once it is there
        pruned_layers(prune, base.layers)
        check_family(prune, "llama")
    check_base(base, prune, sections["tune"], sections["export"])
    if sections["run"].processes != "auto":  # that is known once the machine is
        check_shared(prune, sections["run"].processes)
        check_shares(sections["tune"], sections["run"].processes)
    if sections["run"].sharded and sections["tune"].method == "full":
        raise UserError("run.sharded = true does not go with tune.method = full; expected lora")
    check_low_rank(prune, sections["export"])
    check_control(sections["tune"], sections["models"])
    check_tasks(data)
    check_chosen(evaluate, data)
    check_folders(sections["models"].folders, sections["export"])


def check_base(base: BaseParams, prune: PruneParams, tune: TuneParams, export: ExportParams) -> None:
    """Raise UserError for what the architecture of a base in a local folder does not allow.

    That of other bases is known once they are there: each stage then checks it before it begins.
    """
    try:
        content = json.loads(Path(base.path or "", "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):  # stage base says what is wrong
        return
    model_type = content.get("model_type") if isinstance(content, dict) else None
    if base.source != "path" or model_type not in FAMILIES:
        return
    check_family(prune, model_type)
    family = FAMILIES[model_type]
    named = [] if tune.target_modules == "all-linear" else tune.target_modules
    unknown = [name for name in named if name not in family.linears]
    if unknown and tune.method == "lora":
        raise UserError(
            f"tune.target_modules = {tune.target_modules}: {', '.join(unknown)} is not a linear layer of model_type = "
            f"{model_type!r}; expected one of: {', '.join(family.linears)}"
        )
    formats = [kind for kind in export.formats if kind.startswith("gguf")] if export.models else []
    if formats and family.gguf is None:
        raise UserError(
            f"export.formats = {formats[0]} is not allowed for model_type = {model_type!r}, for which llama.cpp has no "
            "architecture that holds pruned layers; use padded or one of safetensors-*"
        )


def check_low_rank(prune: PruneParams, export: ExportParams) -> None:
    """Raise UserError for a format that does not hold the matrices of low rank that are to be pruned to."""
    refused = [kind for kind in export.formats if kind.startswith(WITHOUT_RANK)]
    if prune.chosen.structure == "rank" and prune.ratio and refused and set(export.models) - {"base"}:
        raise UserError(
            f"export.formats = {refused[0]} does not go with prune.structure = rank: it does not hold matrices of low "
            "rank; expected torchao-int8 or one of safetensors-*"
        )


def check_chosen(evaluate: EvaluateParams, data: DataParams) -> None:
    """Raise UserError for a task to evaluate that data does not make: by its name, or within a group or tag."""
    chosen = [] if evaluate.tasks == "all" else evaluate.tasks
    if set(chosen) <= set(data.task_names):
        return
    known = lm_eval_tasks(data)
    made = [*data.task_names, *known.groups, *known.tasks]
    for name in chosen:
        if name not in made:
            expected = ", ".join(dict.fromkeys(["all", *made]))
            raise UserError(
                f"evaluate.tasks = {name!r} is not a task that stage data makes; expected one of: {expected}"
            )


def check_control(tune: TuneParams, models: ModelsParams) -> None:
    """Raise UserError where the control is made but not measured, or measured but not made.

    A pipeline of DVC has no conditions, so `models` says that it is measured.
    """
    made, measured = tune.control, models.folders.get("control")
    if made and measured != CONTROL:
        raise UserError(f"tune.control = true needs the model among those measured: models: {{control: {CONTROL}}}")
    if measured and not made:
        raise UserError(f"models.control = {measured!r} needs tune.control = true, which makes the model in {CONTROL}")


def check_folders(folders: dict[str, str], export: ExportParams) -> None:
    """Raise UserError for a folder of section `models` that is outside the project or will not be there."""
    exported = [f"{EXPORTS}/{model}-{kind}" for model in export.models for kind in export.formats]
    for name, folder in folders.items():
        what = f"models.{name} = {shown(folder)}"
        path = Path(folder)
        if path.is_relative_to(EXPORTS):
            if str(path) not in exported:
                made = f"one of {', '.join(exported)}" if exported else "a format in export.formats"
                raise UserError(f"{what} is not a folder that stage export makes; expected {made}")
        elif path.is_absolute() or not path.resolve().is_relative_to(Path.cwd()):
            raise UserError(f"{what} is outside the project; expected a folder inside it, such as models/mine")
        elif not path.is_dir() and not any(path.is_relative_to(each) for each in outputs()):
            raise UserError(
                f"{what} is not a folder; expected a model's folder inside the project, such as models/mine"
            )


def outputs() -> list[str]:
    """Return the outputs of the stages in dvc.yaml, which may be there only later."""
    try:
        stages = read_yaml(Path("dvc.yaml"))["stages"].values()
        return [out for stage in stages for out in stage.get("outs", []) if isinstance(out, str)]
    except (FileNotFoundError, KeyError, TypeError, AttributeError):  # then DVC says what is wrong
        return []
