"""Task files: lm-eval's own YAML format, in data/tasks."""

from pathlib import Path
from typing import Any, Literal

import lm_eval.tasks
from lm_eval.tasks._yaml_loader import load_yaml

from stages.common.errors import UserError

STOCK = Path(lm_eval.tasks.__file__).parent


def read_tasks(folder: Path, chosen: Literal["all"] | list[str], cache: Path) -> list[dict[str, Any]]:
    """Return the full configs of the chosen tasks, none if there are none; their datasets will be cached in `cache`.

    The copy that `datasets` makes of every file goes to `cache` and not to the user's home, where it would outlive the
    run. Raises UserError for a task that is unknown or that is not multiple choice with an accuracy.
    """
    files = {file.stem: file for file in sorted(folder.glob("*.yaml"))}
    names = list(files) if chosen == "all" else list(dict.fromkeys(chosen))
    for name in names:
        if name not in files:
            raise UserError(f"evaluate.tasks = {name!r} is not a known task; allowed: {', '.join(['all', *files])}")
    return [with_cache(read_task(files[name]), cache) for name in names]


def read_task(file: Path) -> dict[str, Any]:
    """Return one task's config; UserError if this stage cannot score it."""
    config = load_yaml(file)
    if "stock" in config:
        config = stock_config(file, config.pop("stock")) | config
    metrics = [metric["metric"] for metric in config.get("metric_list", [])]
    if config.get("task") != file.stem or config.get("output_type") != "multiple_choice" or "acc" not in metrics:
        raise UserError(f"{file}: its task must be named {file.stem}, of output_type multiple_choice, with metric acc")
    return config


def stock_config(file: Path, path: str) -> dict[str, Any]:
    """Return lm-eval's own definition at `path` in its package, prompts and functions included."""
    definition = STOCK / path
    if not definition.is_file():
        raise UserError(f"{file}: lm-eval {lm_eval.__version__} has no task file {path}; install the pinned lm-eval")
    return load_yaml(definition)


def with_cache(config: dict[str, Any], cache: Path) -> dict[str, Any]:
    """Return `config` with the dataset's cache folder set."""
    return {**config, "dataset_kwargs": {**config.get("dataset_kwargs", {}), "cache_dir": str(cache)}}
