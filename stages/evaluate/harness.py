"""Run lm-eval's harness; keep what a comparison needs: accuracies, standard errors, every question's outcome."""

import functools
import random
from statistics import fmean
from typing import Any

import lm_eval.utils
import numpy as np
import pandas as pd
import torch
from lm_eval.api.model import LM
from lm_eval.evaluator import evaluate
from lm_eval.tasks import TaskManager

from stages.evaluate.language_model import BranchingLM
from stages.evaluate.resume import Kept

METRICS = ("acc", "acc_norm")

# lm-eval compiles a task's templates anew for every document, a millisecond each: a third of a small model's ARC.
lm_eval.utils.env.from_string = functools.cache(lm_eval.utils.env.from_string)  # type: ignore[method-assign]


def run_tasks(
    model: LM,
    configs: list[dict[str, Any]],
    num_fewshot: int,
    limit: int | None,
    seed: int,
    kept: Kept | None = None,
) -> dict[str, dict[str, Any]]:
    """Return lm-eval's results for the tasks, with its `samples`; `kept` holds what an interrupted run has scored.

    This is what lm_eval.simple_evaluate does with a model object, without its three seconds of looking up hardware,
    git commits and hub revisions, none of which may enter a metric. As there, a task whose own config says
    num_fewshot: 0 stays at 0.
    """
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    loaded = TaskManager(include_defaults=False).load(configs)
    for task in loaded["tasks"].values():
        if task.get_config("num_fewshot") != 0:
            task.set_config(key="num_fewshot", value=num_fewshot)
        task.set_fewshot_seed(seed=seed)
    if isinstance(model, BranchingLM):
        model.begin(loaded["tasks"], kept or Kept())
    return evaluate(model, loaded, limit=limit, log_samples=True)


def scores(results: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return the part of lm-eval's results that the functions below read; it is JSON.

    A right answer is kept where a task's questions all have the same choices, as BoolQ's yes and no: there giving the
    more frequent one is a baseline.
    """
    keys = ("doc_id", *METRICS)
    samples = {
        task: [
            {key: sample[key] for key in keys if key in sample}
            | ({"answer": str(sample["target"])} if isinstance(results["configs"][task]["doc_to_choice"], list) else {})
            for sample in samples
        ]
        for task, samples in results["samples"].items()
    }
    return {"results": {task: dict(values) for task, values in results["results"].items()}, "samples": samples}


def merge(parts: list[dict[str, dict[str, Any]]]) -> dict[str, dict[str, Any]]:
    """Return the scores of several runs, of different tasks, as one."""
    return {key: {task: value for part in parts for task, value in part[key].items()} for key in ("results", "samples")}


def task_metrics(results: dict[str, dict[str, Any]]) -> dict[str, float]:
    """Return `<task>_acc`, `<task>_acc_stderr` and the same of acc_norm where the task defines it.

    A standard error that does not exist, that of one question, is absent.
    """
    metrics = {}
    for task, values in results["results"].items():
        for name in (f"{metric}{suffix}" for metric in METRICS for suffix in ("", "_stderr")):
            value = values.get(f"{name},none")
            if isinstance(value, int | float):
                metrics[f"{task}_{name}"] = float(value)
    return metrics


def accuracies(metrics: dict[str, float]) -> dict[str, float]:
    """Return `<task>_acc` of `task_metrics`, and `average_acc`, the mean over the tasks where there are any."""
    found = {name: value for name, value in metrics.items() if name.endswith("_acc")}
    return found | ({"average_acc": fmean(found.values())} if found else {})


def question_outcomes(results: dict[str, dict[str, Any]]) -> pd.DataFrame:
    """Return one row per question: task, question (its index in the task), acc and acc_norm (0, 1 or missing), answer.

    The answer is the right one, missing where each question has choices of its own.
    """
    columns = (*METRICS, "answer")
    rows = [
        (task, sample["doc_id"], *(sample.get(column) for column in columns))
        for task, samples in results["samples"].items()
        for sample in samples
    ]
    table = pd.DataFrame(rows, columns=["task", "question", *columns])
    return table.astype(dict.fromkeys(METRICS, "Int8") | {"answer": "string"})
