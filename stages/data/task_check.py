"""Check data.tasks against lm-eval before any data is read."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from stages.common.errors import UserError
from stages.data.datasets import DATASETS, named
from stages.data.definitions import Definition, Expanded, expand
from stages.data.params import DataParams
from stages.data.task_rows import check_supported, dataset_of, splits
from stages.data.tasks import TASKS


def lm_eval_tasks(params: DataParams) -> Expanded:
    """Return the tasks and groups of lm-eval that data.tasks names; UserError for a name that it does not know."""
    names = [name for name in params.task_names if name not in TASKS]
    if params.task_folder and not Path(params.task_folder).is_dir():
        raise UserError(f"data.task_folder = {params.task_folder!r} is not a folder; expected a folder of task files")
    return expand(names, params.task_folder) if names else Expanded({}, {})


def check_tasks(params: DataParams) -> None:
    """Raise UserError for a task that is unknown, cannot be run, or would run functions that the params do not allow.

    lm-eval takes some seconds to list what it knows, so the names that `auto` stands for are taken as known.
    """
    if params.tasks != "auto":
        for task in lm_eval_tasks(params).tasks.values():
            check_supported(task)
            check_functions(task, params)
    check_revisions(params)


def check_functions(task: Definition, params: DataParams) -> None:
    """Raise UserError for a function that is not lm-eval's own, unless data.task_functions allows it."""
    from stages.common.task_files import STOCK

    used = [each for each in functions(task.config) if not each.folder.resolve().is_relative_to(STOCK.resolve())]
    if used and not params.task_functions:
        raise UserError(
            f"data.tasks: {task.task_name} uses the Python function {used[0]} of {used[0].folder}; "
            "set data.task_functions: true to run it"
        )


def functions(value: Any) -> Iterator[Any]:
    """Yield the References in a task's config."""
    from stages.common.task_files import Reference

    if isinstance(value, Reference):
        yield value
    elif isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            yield from functions(each)


def check_revisions(params: DataParams) -> None:
    """Raise UserError for a revision of no dataset that is read: it would leave the one that is meant unpinned."""
    known = {dataset.repo for dataset in DATASETS.values()}
    known |= {named(params.calibration).repo, named(params.instructions).repo}
    if set(params.revisions) <= known:
        return
    tasks = lm_eval_tasks(params).tasks.values()
    known |= {dataset_of(task, splits(task.config, None)[0]).repo for task in tasks}
    for name, revision in params.revisions.items():
        if name not in known:
            expected = ", ".join(sorted(known))
            raise UserError(
                f"data.revisions.{name} = {revision!r} does not pin a dataset that is read; expected one of: {expected}"
            )
