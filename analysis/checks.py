"""The audit run on our own tables: each printed value against its row, the raw outcomes and the model's arithmetic.

A row of a table may be one model or several, of which it prints the mean; so what it is checked against is a list.
"""

import math

import numpy as np
import pandas as pd

from analysis.arithmetic import Shape, exact_macs, parameters
from analysis.audit import Finding, check_average, check_chance_corrected, check_known, check_share
from analysis.significance import mean_loss
from analysis.tables import COSTS, DECIMALS

# What a MAC counter may add to the closed formula: the rotary angles, a few multiplications per token and layer.
MAC_TOLERANCE = 0.001
# What weights are more than their parameters: the rotary frequencies, and on CUDA the ends of the allocator's blocks.
BUFFER_TOLERANCE, BLOCK_TOLERANCE = 0.001, 0.05

Outcomes = dict[str, list[pd.DataFrame]]  # by row of the table


def check_quality(
    table: pd.DataFrame, tasks: list[str], chances: dict[str, float], questions: Outcomes, windows: Outcomes
) -> list[Finding]:
    """Return what in the quality table contradicts its row's means, the models' answers or the windows' losses."""
    findings = check_average(table, "average", tasks, DECIMALS)
    if set(tasks) <= set(chances):
        percent = pd.Series({task: 100 * chances[task] for task in tasks}, dtype=float)
        findings += check_chance_corrected(table, "chance_corrected", percent, DECIMALS)
    findings += check_accuracies(table[tasks], questions, "acc")
    for column in table:
        if column.endswith("_ppl"):
            name = column.removesuffix("_ppl")
            known = {row: [perplexity(frame, name) for frame in frames] for row, frames in windows.items()}
            findings += check_known(table, column, by_row(table, known), "losses in windows.parquet", DECIMALS)
    return findings


def check_accuracies(table: pd.DataFrame, questions: Outcomes, metric: str) -> list[Finding]:
    """Return what in a table of tasks is not the share of right answers by `metric`, acc or acc_norm."""
    findings = []
    for task in table:
        known = {row: [accuracy(frame, task, metric) for frame in frames] for row, frames in questions.items()}
        reason = f"share of right answers by {metric} in questions.parquet"
        findings += check_known(table, task, by_row(table, known), reason, DECIMALS)
    return findings


def check_costs(table: pd.DataFrame, shapes: dict[str, list[Shape]], tokens: int) -> list[Finding]:
    """Return what in the cost table contradicts its own quotients or the closed formulas for the models' shapes.

    The first row is the base.
    """
    findings = []
    for metric, _, decimals in COSTS:
        if metric in table:
            whole = table.assign(base=table[metric].iloc[0])
            findings += check_share(whole, f"{metric}_percent", metric, "base", DECIMALS, decimals)
    counted = {row: [float(parameters(shape)) for shape in each] for row, each in shapes.items()}
    findings += check_known(table, "parameters", by_row(table, counted), "the shape in config.json", 0)
    computed = {row: [exact_macs(shape, tokens) / 1e9 for shape in each] for row, each in shapes.items()}
    reason = f"the shape in config.json, {tokens} tokens"
    return findings + check_known(table, "gmacs", by_row(table, computed), reason, 4, MAC_TOLERANCE)


def check_weights(table: pd.DataFrame, stored: dict[str, list[float]], on_cuda: set[str]) -> list[Finding]:
    """Return the rows whose weights are not as large as their parameters are `stored`, by config.json, in MiB.

    Those that were measured, `on_cuda`, may be somewhat more.
    """
    if "weights_mib" not in table:
        return []
    findings = []
    for measured, tolerance in ((True, BLOCK_TOLERANCE), (False, BUFFER_TOLERANCE)):
        known = by_row(table, {row: sizes for row, sizes in stored.items() if (row in on_cuda) == measured})
        reason = f"shape and dtype in config.json, {tolerance:.1%} allowed for the rest"
        findings += check_known(table, "weights_mib", known, reason, DECIMALS, tolerance)
    return findings


def check_sizes(table: pd.DataFrame, shapes: dict[str, list[Shape]]) -> list[Finding]:
    """Return what in the table of parameters before and after pruning contradicts its row or the models' shapes."""
    if table.empty:
        return []
    findings = check_share(table, "kept_percent", "after", "before", DECIMALS, 0)
    if "nonzero" in table:
        findings += check_share(table, "nonzero_percent", "nonzero", "before", DECIMALS, 0)
    for column, model in (("before", "base"), ("after", "pruned")):
        known = by_row(table, {"pruned": [float(parameters(shape)) for shape in shapes.get(model, [])]})
        findings += check_known(table, column, known, f"the {model} model's shape in config.json", 0)
    return findings


def by_row(table: pd.DataFrame, values: dict[str, list[float]]) -> pd.Series:
    """Return the means of the values as a column of `table`, NaN where a row has none."""
    means = {row: float(np.mean(each)) if each else math.nan for row, each in values.items()}
    return pd.Series(means, dtype=float).reindex(table.index)


def accuracy(questions: pd.DataFrame, task: str, metric: str) -> float:
    """Return the share of right answers in percent, NaN where none is told."""
    return 100 * float(questions.loc[questions["task"] == task, metric].astype(float).mean())


def perplexity(windows: pd.DataFrame, name: str) -> float:
    """Return the perplexity over the windows of set `name`, NaN if there are none."""
    chosen = windows[windows["set"] == name]
    if chosen.empty:
        return math.nan
    return float(np.exp(mean_loss(chosen[["loss"]].to_numpy(dtype=float), chosen["tokens"].to_numpy(dtype=float))[0]))
