"""The stage's outputs from lm-eval's results: the metrics, all numbers, and the outcome of every question."""

import re
from statistics import fmean
from typing import Any

import pandas as pd

from stages.evaluate.harness import METRICS, Results

NO_NUMBERS = ("name", "alias", "sample_len")


def task_metrics(results: Results) -> dict[str, float]:
    """Return `<task>_acc`, `<task>_acc_stderr` and the same of every other metric that the tasks define.

    A metric of a filter has the filter's name behind its own. A standard error that does not exist, that of one
    question, is absent.
    """
    return {
        metric_name(task, key): float(value)
        for task, values in results["results"].items()
        for key, value in values.items()
        if key not in NO_NUMBERS and isinstance(value, int | float)
    }


def metric_name(task: str, key: str) -> str:
    """Return the name of a metric of lm-eval's results, `acc_stderr,none` or `exact_match,strict-match`."""
    metric, _, kind = key.partition(",")
    stderr = "_stderr" if metric.endswith("_stderr") else ""
    parts = [metric.removesuffix(stderr), *([kind] if kind not in ("none", "") else [])]
    return f"{task}_{re.sub(r'[^A-Za-z0-9_]+', '_', '_'.join(parts))}{stderr}"


def headlines(results: Results) -> dict[str, float]:
    """Return one number of each task: its accuracy, or else its first metric; and the mean of the accuracies."""
    found = {}
    for task, values in results["results"].items():
        keys = [key for key, value in values.items() if "," in key and isinstance(value, int | float)]
        keys = [key for key in keys if not key.partition(",")[0].endswith("_stderr")]
        if chosen := next((key for key in keys if key.startswith("acc,")), next(iter(keys), None)):
            found[metric_name(task, chosen)] = float(values[chosen])
    accuracies = [value for name, value in found.items() if name.endswith("_acc")]
    return found | ({"average_acc": fmean(accuracies)} if accuracies else {})


def only(results: Results, names: list[str]) -> Results:
    """Return the part of the results that is of `names`, in the order of the results."""
    return {key: {name: value for name, value in part.items() if name in names} for key, part in results.items()}


def question_outcomes(results: Results) -> pd.DataFrame:
    """Return one row per question: task, question (its index in the task), acc and acc_norm (0, 1 or missing), answer.

    The answer is the right one, missing where each question has choices of its own. Tasks whose questions are not
    right or wrong by an accuracy have no rows.
    """
    columns = (*METRICS, "answer")
    rows = [
        (task, sample["doc_id"], *(sample.get(column) for column in columns))
        for task, samples in results["samples"].items()
        if all("acc" in sample for sample in samples)
        for sample in samples
    ]
    table = pd.DataFrame(rows, columns=["task", "question", *columns])
    return table.astype(dict.fromkeys(METRICS, "Int8") | {"answer": "string"})


def question_values(results: Results) -> pd.DataFrame:
    """Return one row per question and metric that has a value for it: task, question, metric, filter, value."""
    rows: list[tuple[Any, ...]] = [
        (task, sample["doc_id"], *key.split(",", 1), value)
        for task, samples in results["samples"].items()
        for sample in samples
        for key, value in sample["values"].items()
    ]
    table = pd.DataFrame(rows, columns=["task", "question", "metric", "filter", "value"])
    kinds = {"task": "string", "question": "int64", "metric": "string", "filter": "string", "value": "float64"}
    return table.astype(kinds)
