"""Read what the other stages wrote. What is missing stays missing: an empty dict, no number."""

import json
import math
from collections.abc import Iterable
from pathlib import Path

import yaml

from stages.common.errors import UserError
from stages.common.params import FOLDERS

MODELS = tuple(FOLDERS)
CONTROL = "control"  # the base tuned as the pruned model is, where section `models` names it
# Which models of a run are compared: the reference, the model.
PAIRS = (("base", "pruned"), ("base", "tuned"), ("pruned", "tuned"), ("base", CONTROL))
SPARSE = 0.99  # a model is sparse if a smaller share of its parameters than this is not zero

Metrics = dict[str, float]


def read_json(path: Path, kind: type = dict):
    """Return the content of a JSON file, which is a `kind`, an empty dict where there is no such file."""
    return parse_json(path.read_bytes() if path.is_file() else None, path, kind)


def parse_json(text: bytes | None, path: Path | str, kind: type = dict):
    """Return the content of the JSON file at `path`, which is a `kind`; an empty dict without a text."""
    if text is None:
        return {}
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not valid JSON ({error}); run the stage that writes it again") from None
    if not isinstance(content, kind):
        raise UserError(f"{path} holds no {kind.__name__} of JSON; run the stage that writes it again")
    return content


def model_folders(further: dict[str, str]) -> dict[str, Path]:
    """Return the folders of base, pruned, tuned and, where section `models` (`further`) names it, control."""
    return FOLDERS | {name: Path(folder) for name, folder in further.items() if name == CONTROL}


def read_measured(metrics: Path, stage: str, model: str) -> Metrics:
    """Return what `stage` (evaluate or profile) measured of a model: its metrics and its details."""
    return read_json(metrics / stage / f"{model}.json") | read_json(metrics / "details" / stage / f"{model}.json")


def read_by_model(metrics: Path, stage: str, models: Iterable[str] = MODELS) -> dict[str, Metrics]:
    """Return what `stage` measured of every model."""
    return {model: read_measured(metrics, stage, model) for model in models}


def names_with(metrics: dict[str, Metrics], suffix: str) -> list[str]:
    """Return, sorted, every <name> for which some model has the metric <name><suffix>."""
    keys = {key for model in metrics.values() for key in model}
    return sorted(key.removesuffix(suffix) for key in keys if key.endswith(suffix))


def task_names(evaluate: dict[str, Metrics]) -> list[str]:
    """Return the tasks that were scored."""
    return [name for name in names_with(evaluate, "_acc") if name != "average"]


def perplexity_sets(evaluate: dict[str, Metrics]) -> list[str]:
    """Return the texts whose perplexity was measured."""
    return names_with(evaluate, "_ppl")


def is_sparse(sizes: Metrics) -> bool:
    """Return whether a model of these metrics has more zeros than chance and dead units explain."""
    return sizes.get("parameters_nonzero", math.inf) < SPARSE * sizes.get("parameters", 0)


class TaskLoader(yaml.SafeLoader):
    """YAML of lm-eval, whose `!function` tags name code that is not wanted here."""


TaskLoader.add_multi_constructor("!", lambda loader, suffix, node: None)


def read_chances(folder: Path) -> dict[str, float]:
    """Return the accuracy of guessing for each task of `folder` whose YAML gives it (metadata.chance)."""
    chances = {}
    for path in sorted(folder.glob("*.yaml")):
        task = yaml.load(path.read_text(encoding="utf-8"), Loader=TaskLoader)
        chance = (task.get("metadata") or {}).get("chance")
        if chance is not None:
            chances[task.get("task", path.stem)] = float(chance)
    return chances
