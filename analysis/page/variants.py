"""The variants of a page: what was measured of each row of the tables, in the page's terms."""

import math
from typing import Any

import numpy as np

from analysis.averages import average_accuracy, average_corrected, baseline_table, majority_shares
from analysis.results import Metrics, is_sparse, perplexity_sets, task_names
from analysis.rows import Result, Row
from analysis.tables import COSTS, DECIMALS

FASTER = "_per_second"  # ends the costs of which more is better


def measures(base: Result, rows: list[Row]) -> list[dict[str, Any]]:
    """Return what the page can show of a variant: key, label, group, which end is better, digits, where it is from."""
    results = {run.label: run for row in rows for run in row.runs}
    evaluate = {label: run.evaluate for label, run in results.items()}
    sets, tasks = perplexity_sets(evaluate), task_names(evaluate)
    found = [
        measure(f"{name}_ppl", f"{name} perplexity", "quality", "low", DECIMALS, "evaluate", f"{name}_ppl")
        for name in sets
    ]
    found += [measure(task, f"{task} (%)", "quality", "high", DECIMALS, "evaluate", f"{task}_acc") for task in tasks]
    averages = {"average": "average accuracy (%)", "chance_corrected": "chance-corrected accuracy (%)"}
    computed = "the tasks' accuracies, averaged"
    for key, label in averages.items() if tasks else ():
        found.append(measure(key, label, "quality", "high", DECIMALS, "evaluate", computed))
    sparse = any(is_sparse(run.profile) for row in rows if not row.format for run in row.runs)
    for metric, label, digits in COSTS:
        if metric != "parameters_nonzero" or sparse:
            better = "high" if metric.endswith(FASTER) else "low"
            found.append(measure(metric, label, "cost", better, digits, "profile", metric))
    return [each for each in found if any(has(row, each) for row in rows)]


def measure(key: str, label: str, group: str, better: str, digits: int, stage: str, source: str) -> dict[str, Any]:
    """Return one measure; `source` is its key in the metrics of `stage`."""
    return {
        "key": key, "label": label, "group": group, "better": better, "digits": digits, "stage": stage,
        "source": source,
    }  # fmt: skip


def has(row: Row, each: dict[str, Any]) -> bool:
    """Return whether a row has some measure; averages come with the tasks."""
    return each["key"] in ("average", "chance_corrected") or bool(row.values(each["stage"], each["source"]))


def variant(number: int, row: Row, chances: Metrics, tasks: list[str], shown: list[dict[str, Any]]) -> dict[str, Any]:
    """Return a variant: its name, its values (means over the runs), and their spread where there are several runs."""
    values: dict[str, list[float]] = {}
    for each in shown:
        scale = 100 if each["source"].endswith("_acc") else 1
        values[each["key"]] = [scale * float(value) for value in row.values(each["stage"], each["source"])]
    averages = [average_accuracy(run.evaluate, tasks) for run in row.runs]
    values["average"] = [100 * value for value in averages if not math.isnan(value)]
    corrected = [average_corrected(run.evaluate, tasks, chances) for run in row.runs]
    values["chance_corrected"] = [100 * value for value in corrected if not math.isnan(value)]
    before = row.base.profile.get("parameters", 0)
    values["kept_percent"] = [100 * value / before for value in row.values("profile", "parameters") if before]
    return {
        "id": number,
        "label": row.label,
        "line": row.line,
        "method": row.method,
        "model": row.model,
        "ratio": row.ratio,
        "tuned": row.tuned,
        "role": "base" if number == 0 else "variant",
        "runs": len(row.runs),
        "values": {key: float(np.mean(each)) for key, each in values.items() if each},
        "spread": {key: float(np.std(each, ddof=1)) for key, each in values.items() if len(each) > 1},
        "errors": standard_errors(row, tasks) if len(row.runs) == 1 else {},
        "layers": widths(row.runs[0]),
    }


def standard_errors(row: Row, tasks: list[str]) -> dict[str, float]:
    """Return the standard errors of the row's accuracies, in percent."""
    (run,) = row.runs
    return {task: 100 * run.evaluate[key] for task in tasks if (key := f"{task}_acc_stderr") in run.evaluate}


def widths(run: Result) -> dict[str, list[float]]:
    """Return what pruning left of each layer and what was there before, by the columns of metrics/prune_layers.csv."""
    if run.layers is None:
        return {}
    return {str(column): values.tolist() for column, values in run.layers.items()}


def baselines(base: Result, tasks: list[str], chances: Metrics) -> list[dict[str, Any]]:
    """Return the rows that take no model: guessing, and always the answer that is most often right."""
    table = baseline_table(tasks, chances, majority_shares({"base": base.questions}))
    return [
        {"label": str(name), "role": "guess", "values": {key: value for key, value in row.items() if value == value}}
        for name, row in table.iterrows()
    ]
