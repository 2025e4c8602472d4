"""The data to evaluate on, in addition to the held-out part of the text: tasks and further perplexity sets, by name.

Names of public datasets are read from a mirror or the hub. The others need no network: the tasks from Python's
documentation, and the abstracts that come with lm-eval.
"""

from dataclasses import dataclass
from typing import Any

from stages.common.errors import UserError
from stages.data import abstracts, package_files, python_docs
from stages.data.collected import Task
from stages.data.datasets import named
from stages.data.definitions import GroupDefinition
from stages.data.library import Library, texts_of
from stages.data.params import DataParams
from stages.data.splits import deduplicate, split
from stages.data.stock_tasks import read_tasks
from stages.data.task_check import lm_eval_tasks
from stages.data.task_files import multiple_choice
from stages.data.tasks import TASKS, make_tasks

Splits = dict[str, list[python_docs.Document]]


@dataclass(frozen=True)
class EvaluationData:
    """Tasks and perplexity sets, without those that a mirror lacks."""

    tasks: dict[str, Task]
    perplexity: dict[str, list[str]]
    sources: list[dict[str, Any]]  # records of sets that no Library reads
    groups: dict[str, GroupDefinition]


def collect(
    params: DataParams, few_shot: int | None, library: Library, documentation: Splits | None = None
) -> EvaluationData:
    """Return the tasks of data.tasks, and the sets of data.perplexity in their order; `library` records missing ones.

    `few_shot` is the number of few-shot examples, null for each task's own: with any, lm-eval's tasks have the split
    that they come from. The tasks from Python's documentation have none: their examples are other questions.
    `documentation` is that text, split, where the caller has it.
    Raises UserError if it does not give `data.questions` for a task.
    """
    known = lm_eval_tasks(params)
    stock = read_tasks(known.tasks, library.get, few_shot)
    public = [name for name in params.set_names if name != abstracts.NAME]
    read = {name: library.get(name, named(name), str(named(name).held_out)) for name in public}
    made = python_tasks(params, documentation)
    sets = {name: texts_of(name, table) for name, table in read.items() if table is not None}
    sources = []
    if abstracts.NAME in params.set_names:
        sets[abstracts.NAME] = abstracts.documents()
        sources.append(package_files.source(abstracts.NAME, abstracts.DISTRIBUTIONS, sets[abstracts.NAME]))
    return EvaluationData(
        tasks=made | stock,
        perplexity={name: sets[name] for name in params.set_names if name in sets},
        sources=sources,
        groups=known.groups,
    )


def python_tasks(params: DataParams, documentation: Splits | None) -> dict[str, Task]:
    """Return those of data.tasks that are made from the held-out part of Python's documentation."""
    names = [name for name in params.task_names if name in TASKS]
    if not names:
        return {}
    splits = documentation or split_documentation(params)
    rows = make_tasks(names, splits["test"], splits["train"] + splits["validation"], params.questions, params.seed)
    return {name: multiple_choice(name, each) for name, each in rows.items()}


def split_documentation(params: DataParams) -> Splits:
    """Return the documents of Python's documentation, split."""
    documents = deduplicate(python_docs.collect())
    return split(documents, {"validation": params.validation_share, "test": params.test_share}, params.seed)


def check_left(params: DataParams, data: EvaluationData) -> None:
    """Raise UserError if data.missing: skip left nothing of the tasks or sets that the params name."""
    for key, wanted, found in (
        ("tasks", params.task_names, data.tasks),
        ("perplexity", params.set_names, data.perplexity),
    ):
        if wanted and not found:
            raise UserError(f"nothing is left of data.{key} = {wanted}; expected at least one that the mirror has")
