"""Which rows a task of lm-eval reads, and where they are on the hub."""

from pathlib import Path
from typing import Any

from stages.common.errors import UserError
from stages.data.datasets import Dataset
from stages.data.definitions import Definition

REFUSED = {
    "class": "is a Python class",
    "custom_dataset": "makes its questions by a Python function",
    "unsafe_code": "runs code that the model writes",
    "doc_to_image": "shows images",
    "doc_to_audio": "plays sounds",
}
FILES = ("json", "parquet")  # what dataset_path may say in the place of a name on the hub
SETTINGS = {"trust_remote_code", "verification_mode", "features", "revision", "data_files"}  # of dataset_kwargs
HUB = "hf://datasets/"


def check_supported(task: Definition) -> None:
    """Raise UserError for a task whose rows cannot be snapshotted, or that this project does not run."""
    for key, what in REFUSED.items():
        if task.config.get(key):
            raise UserError(f"data.tasks: {task.task_name} {what}, which only lm-eval itself runs; remove it")
    if "/" in task.task_name:
        raise UserError(f"data.tasks: {task.task_name!r} is not a valid file name; remove it")
    scored, _ = splits(task.config, None)
    dataset_of(task, scored)


def splits(config: dict[str, Any], num_fewshot: int | None) -> tuple[str, str | None]:
    """Return the split that is scored, and that of few-shot examples if any of a split are asked for.

    `num_fewshot`: as evaluate.num_fewshot; null is the task's own number.
    """
    scored = config.get("test_split") or config.get("validation_split")
    if scored is None:
        raise UserError(f"data.tasks: {config.get('task')} has neither a test nor a validation split; remove it")
    own = config.get("num_fewshot")
    if not (own if own == 0 or num_fewshot is None else num_fewshot):
        return scored, None
    settings = config.get("fewshot_config") or {}
    named = settings.get("split") or config.get("fewshot_split")
    if named is None and settings.get("samples") is not None:
        return scored, None
    return scored, named or config.get("training_split") or config.get("validation_split") or scored


def dataset_of(task: Definition, split: str) -> Dataset:
    """Return where a split of the task is stored; UserError if they are not Parquet or JSON files on the hub."""
    repo, settings = task.config.get("dataset_path"), task.config.get("dataset_kwargs") or {}
    config, files = task.config.get("dataset_name"), settings.get("data_files")
    file = files.get(split) if isinstance(files, dict) else files
    if repo in FILES and isinstance(file, str) and file.startswith(HUB):
        organisation, name, file = file.removeprefix(HUB).split("/", 2)
        repo, config = f"{organisation}/{name}", Path(file).stem
    elif repo in FILES or not isinstance(repo, str) or repo in ("csv", "text", "arrow"):
        file = files
    if not isinstance(repo, str) or not (file is None or isinstance(file, str)) or set(settings) - SETTINGS:
        raise UserError(
            f"data.tasks: {task.task_name} reads {repo} with {settings}; expected Parquet or JSON files of a dataset "
            "on the hub; remove it"
        )
    return Dataset(repo, config, settings.get("revision") or "main", file)
