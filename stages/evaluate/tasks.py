"""Task files: lm-eval's own YAML format, in data/tasks."""

from pathlib import Path
from typing import Any, Literal

import lm_eval.tasks
import pyarrow as pa
import pyarrow.parquet as pq
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
    return [with_cache(without_metadata(read_task(files[name]), cache), cache) for name in names]


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


def without_metadata(config: dict[str, Any], cache: Path) -> dict[str, Any]:
    """Return `config` with copies in `cache` in the place of Parquet files whose schema carries metadata.

    It may declare a column as images or audio, and `datasets` would then open the paths and addresses in that column.
    """
    settings = config.get("dataset_kwargs", {})
    files = settings.get("data_files")
    if config.get("dataset_path") != "parquet" or not isinstance(files, dict):
        return config
    plain = {
        split: plain_copy(Path(file), cache / f"{config['task']}.{split}.parquet") for split, file in files.items()
    }
    return {**config, "dataset_kwargs": {**settings, "data_files": plain}}


def plain_copy(file: Path, copy: Path) -> str:
    """Return `file`, or `copy` after writing it there without metadata, if it has any; UserError if it is damaged."""
    try:
        schema = pq.read_schema(file)
        plain = pa.schema([field.remove_metadata() for field in schema])
        if schema.equals(plain, check_metadata=True):
            return str(file)
        copy.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pq.read_table(file).cast(plain), copy)
    except (OSError, ValueError) as error:
        raise UserError(f"{file}: no Parquet file, or a damaged one ({' '.join(str(error).split())})") from None
    return str(copy)


def with_cache(config: dict[str, Any], cache: Path) -> dict[str, Any]:
    """Return `config` with the dataset's cache folder set."""
    return {**config, "dataset_kwargs": {**config.get("dataset_kwargs", {}), "cache_dir": str(cache)}}
