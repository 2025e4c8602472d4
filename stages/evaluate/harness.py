"""Run lm-eval's harness and keep its results and the outcome of every question."""

import os
import random
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from lm_eval.api.group import Group
from lm_eval.api.model import LM
from lm_eval.evaluator import evaluate

from stages.common.task_files import build, one_line
from stages.evaluate.language_model import BranchingLM
from stages.evaluate.resume import Kept

METRICS = ("acc", "acc_norm")
# Draws for the standard error of what is no mean, such as F1: of 1000, it is known to 2 %. lm-eval's default, 100,000,
# would take minutes of every task.
BOOTSTRAP_SAMPLES = 1000
os.environ.setdefault("DISABLE_MULTIPROC", "1")  # lm-eval would fork this process, with torch's threads, to draw them

Results = dict[str, dict[str, Any]]


def run_tasks(
    model: LM,
    configs: list[dict[str, Any]],
    num_fewshot: int | None,
    limit: int | None,
    seed: int,
    kept: Kept | None = None,
    chat_template: bool = False,
) -> Results:
    """Return lm-eval's results for the tasks, with its `samples`; `kept` holds the scores of an interrupted run.

    This is what lm_eval.simple_evaluate does with a model object, without its three seconds of looking up hardware,
    git commits and hub revisions, none of which may enter a metric. As there, a task whose own config says
    num_fewshot: 0 stays at 0, and without `num_fewshot` each has its own number.
    """
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    tasks = {config["task"]: build(config) for config in configs}
    for task in tasks.values():
        if num_fewshot is None:
            task.set_config(key="num_fewshot", value=task.get_config("num_fewshot") or 0)
        elif task.get_config("num_fewshot") != 0:
            task.set_config(key="num_fewshot", value=num_fewshot)
        task.set_fewshot_seed(seed=seed)
    if isinstance(model, BranchingLM):
        model.begin(tasks, kept or Kept())
    with one_line(", ".join(tasks)):
        return evaluate(
            model,
            {"tasks": tasks, "groups": {}, "group_map": {}},
            limit=limit,
            bootstrap_iters=BOOTSTRAP_SAMPLES,
            log_samples=True,
            apply_chat_template=chat_template,
            fewshot_as_multiturn=chat_template,
        )


def scores(results: Results) -> Results:
    """Return the part of lm-eval's results that is kept; it is JSON.

    `samples` has per question its number, its accuracies, and in `values` each metric that is a number, by metric and
    filter as in lm-eval's results. A right answer is kept where a task's questions all have the same choices, as
    BoolQ's yes and no: there giving the more frequent one is a baseline.
    """
    return {
        "results": {task: numbers(values) for task, values in results["results"].items()},
        "samples": {
            task: outcomes(samples, isinstance(results["configs"][task].get("doc_to_choice"), list))
            for task, samples in results["samples"].items()
        },
    }


def numbers(values: dict[str, Any]) -> dict[str, Any]:
    """Return the part of a task's results that JSON can hold: names and numbers."""
    kept = {key: value.item() if isinstance(value, np.generic) else value for key, value in values.items()}
    return {key: value for key, value in kept.items() if isinstance(value, int | float | str)}


def outcomes(samples: list[dict[str, Any]], same_choices: bool) -> list[dict[str, Any]]:
    """Return the outcome of each question; lm-eval has one sample of a question for each filter."""
    found: dict[int, dict[str, Any]] = {}
    for sample in samples:
        kept = found.setdefault(sample["doc_id"], {"doc_id": sample["doc_id"], "values": {}})
        measured = {metric: sample[metric] for metric in sample["metrics"] if is_number(sample[metric])}
        kept["values"] |= {f"{metric},{sample['filter']}": float(value) for metric, value in measured.items()}
        # lm-eval's accuracies are 0 or 1; a task's own function may call a probability one.
        if sample["filter"] == "none":
            kept |= {key: float(measured[key]) for key in METRICS if measured.get(key) in (0, 1)}
        if same_choices:
            kept["answer"] = str(sample["target"])
    return list(found.values())


def is_number(value: Any) -> bool:
    """Return whether a metric of one question is a number; some are inputs of a corpus metric."""
    return isinstance(value, int | float | np.number)


def merge(parts: list[Results]) -> Results:
    """Return the scores of several runs, of different tasks, as one."""
    return {key: {task: value for part in parts for task, value in part[key].items()} for key in ("results", "samples")}


class NamedGroup(Group):
    """lm-eval's group, of tasks that are known by name alone: their results may be those of an earlier run."""

    def get_all_tasks(self, recursive: bool = True) -> list[Any]:
        """Return the given tasks."""
        return [SimpleNamespace(task_name=name) for name in (self.metadata or {})["tasks"]]


def with_groups(results: Results, groups: dict[str, dict[str, Any]]) -> Results:
    """Return the results with those of groups, which lm-eval takes from their tasks': weighted means and their errors.

    The samples of a group are those of its tasks, numbered on; a group that counts tasks and not questions has none.
    """
    found = dict(results["results"])
    samples = dict(results["samples"])
    for name, file in groups.items():
        settings = {key: file.get(key) for key in ("group", "group_alias", "aggregate_metric_list")}
        group = NamedGroup.from_config({**settings, "metadata": {"tasks": file["tasks"]}})
        found[name] = numbers(dict(group.aggregate(results["results"])))  # type: ignore[arg-type]
        by_size = all(each.get("weight_by_size", True) for each in file.get("aggregate_metric_list") or [])
        below = [sample for task in file["tasks"] if by_size for sample in results["samples"].get(task, [])]
        samples[name] = [{**sample, "doc_id": number} for number, sample in enumerate(below)]
    return {"results": found, "samples": samples}
