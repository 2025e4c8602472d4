"""Tasks by lm-eval's definitions, in which only the location of the data is replaced.

The YAML written for a task names lm-eval's definition (`stock`, a path inside the package), so prompts, choices
and Python functions are those of the lm-eval that evaluates.
"""

import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import fmean
from typing import Any

import pyarrow as pa

from stages.data.collected import Task
from stages.data.datasets import Dataset
from stages.data.definitions import Definition
from stages.data.task_files import write_task
from stages.data.task_rows import check_supported, dataset_of, splits

Get = Callable[[str, Dataset, str], pa.Table | None]


def read_tasks(definitions: dict[str, Definition], get: Get, num_fewshot: int | None) -> dict[str, Task]:
    """Return the tasks with the rows that `get` finds for them, without those that it lacks."""
    found = {name: task_with_rows(each, get, num_fewshot) for name, each in definitions.items()}
    return {name: task for name, task in found.items() if task is not None}


def task_with_rows(task: Definition, get: Get, num_fewshot: int | None) -> Task | None:
    """Return the task with every split that it reads, or None where `get` lacks one.

    Few-shot examples' split is read only where there are such examples; `get` notes a missing one.
    """
    check_supported(task)
    scored, examples = splits(task.config, num_fewshot)
    tables = {split: get(task.task_name, dataset_of(task, split), split) for split in filter(None, (scored, examples))}
    if tables[scored] is None:
        return None
    rows = {split: table for split, table in tables.items() if table is not None}
    return Task(located(task, rows), rows, scored)


def located(task: Definition, rows: dict[str, pa.Table]) -> dict[str, Any]:
    """Return the task to write: the path of its definition, a group's settings, and only the splits in `rows`."""
    from stages.common.task_files import STOCK, VERSION

    config, file = task.config, task.file
    stock = file is not None and file.is_relative_to(STOCK)
    own = {"stock": file.relative_to(STOCK).as_posix(), **task.overrides} if file and stock else config
    kept = {"task": task.task_name, **{key: value for key, value in own.items() if key not in ("task", "metadata")}}
    unread = {key: None for key in config if key.endswith("_split") and config[key] not in (*rows, None)}
    read = {key: config[key] for key in config if key.endswith("_split") and config[key] in rows}
    examples = (config.get("fewshot_config") or {}).get("split")
    if examples is not None and examples not in rows:
        unread["fewshot_config"] = None
    metadata = config.get("metadata") or {}
    metadata = metadata if isinstance(metadata, dict) else {"_metadata": metadata}
    return {**kept, **read, **unread, "metadata": {**metadata, "lm_eval": VERSION}}


def with_chance(task: Task) -> Task:
    """Return the task with the accuracy of guessing in its metadata, where guessing is choosing one of its answers.

    Raises UserError where lm-eval cannot make the task of its rows.
    """
    if "chance" in task.config["metadata"]:
        return task
    from stages.common.task_files import build, local, read_task

    with tempfile.TemporaryDirectory() as folder:
        write_task(task.name, task, Path(folder), Path(folder))
        made = build(local(read_task(Path(folder, f"{task.name}.yaml")), Path(folder, "cache")))
        chance = chance_of(made)
    if chance is None:
        return task
    metadata = {**task.config["metadata"], "chance": chance}
    return Task({**task.config, "metadata": metadata}, task.splits, task.scored)


def chance_of(task: Any) -> float | None:
    """Return the mean over lm-eval's task's questions of the share of right answers among the choices.

    None where lm-eval does not score the choice of one answer, so that guessing has no such accuracy.
    """
    listed = "acc" in task.aggregation() and task.OUTPUT_TYPE == "multiple_choice"
    if not listed or task.config.process_results is not None:
        return None
    shares = []
    for document in task.eval_docs:
        choices, right = task.doc_to_choice(document), task.doc_to_target(document)
        shares.append((len(set(right)) if task.multiple_target and isinstance(right, list) else 1) / len(choices))
    return fmean(shares)
