"""The audit run on our own tables: each printed value against its row, the raw outcomes and the model's arithmetic.

A row of a table is one model, or the mean of several, so it is checked against a list.
"""

import math

import numpy as np
import pandas as pd

from analysis.arithmetic import Shape, exact_macs, parameters, shape_of, stored_mib
from analysis.audit import (
    CONTRADICTION,
    Finding,
    check_average,
    check_chance_corrected,
    check_known,
    check_share,
)
from analysis.averages import chance_corrected
from analysis.contrasts import ACCURACY, PERPLEXITY
from analysis.quality import AVERAGE, CORRECTED, Measure, measures, tasks_of
from analysis.results import Metrics
from analysis.rows import Result, Runs
from analysis.significance import mean_loss
from analysis.tables import COSTS, DECIMALS

# What a MAC counter may add to the closed formula: the rotary angles, a few multiplications per token and layer.
MAC_TOLERANCE = 0.001
# What weights are more than their parameters: the rotary frequencies, and on CUDA the ends of the allocator's blocks.
BUFFER_TOLERANCE, BLOCK_TOLERANCE = 0.001, 0.05


def contradictions(
    runs: Runs,
    quality: pd.DataFrame,
    costs: pd.DataFrame,
    chances: Metrics,
    tokens: int,
    norms: pd.DataFrame | None = None,
    sizes: pd.DataFrame | None = None,
) -> list[Finding]:
    """Return what in the tables, as they are printed, contradicts itself or its source.

    `runs` are by row of the tables, the base first; `tokens` is the length of the profiled forward pass.
    """
    decimals = {metric: digits for metric, _, digits in COSTS}
    quality, costs = quality.round(DECIMALS), costs.round({name: decimals.get(name, DECIMALS) for name in costs})
    findings = check_quality(quality, runs, chances) + check_spread(quality, runs, chances) + check_kept(quality, runs)
    if norms is not None:
        findings += check_accuracies(norms.round(DECIMALS), runs, list(norms), "acc_norm")
    shapes = {row: [shape_of(run.config) for run in each if run.config] for row, each in runs.items()}
    # The size of a GGUF's weights is that of its tensors, which no config.json gives.
    dense = {row: [run for run in each if run.config and "gguf" not in run.model] for row, each in runs.items()}
    stored = {row: [stored_mib(run.config) for run in each] for row, each in dense.items()}
    on_cuda = {row for row, each in runs.items() if any(run.profile.get("memory_on_cuda") for run in each)}
    findings += check_costs(costs, shapes, tokens) + check_weights(costs, stored, on_cuda)
    if sizes is not None:
        findings += check_sizes(sizes, shapes)
    return [finding for finding in findings if finding.kind == CONTRADICTION]


def check_quality(table: pd.DataFrame, runs: Runs, chances: Metrics) -> list[Finding]:
    """Return what in the quality table contradicts its row's means, the models' answers or the windows' losses."""
    columns = measures(runs)
    tasks, findings = tasks_of(columns), []
    if tasks:
        findings += check_average(table, AVERAGE, tasks, DECIMALS)
        if set(tasks) <= set(chances):
            percent = pd.Series({task: 100 * chances[task] for task in tasks}, dtype=float)
            findings += check_chance_corrected(table, CORRECTED, percent, DECIMALS)
    findings += check_accuracies(table, runs, tasks, "acc")
    for each in columns:
        if each.metric == PERPLEXITY:
            known = {row: [perplexity(run.windows, each.name) for run in group] for row, group in runs.items()}
            findings += check_known(table, each.column, by_row(table, known), "losses in windows.parquet", DECIMALS)
    return findings


def check_accuracies(table: pd.DataFrame, runs: Runs, tasks: list[str], metric: str) -> list[Finding]:
    """Return what in the columns `tasks` is not the share of right answers by `metric`, acc or acc_norm."""
    findings = []
    for task in tasks:
        known = {row: [accuracy(run.questions, task, metric) for run in group] for row, group in runs.items()}
        reason = f"share of right answers by {metric} in questions.parquet"
        findings += check_known(table, task, by_row(table, known), reason, DECIMALS)
    return findings


def check_spread(table: pd.DataFrame, runs: Runs, chances: Metrics) -> list[Finding]:
    """Return what is not the standard deviation of the row's runs, by their answers and losses."""
    columns, findings = measures(runs), []
    tasks = tasks_of(columns)
    repeated = {row: group for row, group in runs.items() if len(group) > 1}
    for each in columns if repeated else ():
        values = {row: [recomputed(run, each, tasks, chances) for run in group] for row, group in repeated.items()}
        known = {row: [float(np.std(each, ddof=1))] for row, each in values.items()}
        reason = "standard deviation of the runs"
        findings += check_known(table, each.spread, by_row(table, known), reason, DECIMALS)
    return findings


def recomputed(run: Result, measure: Measure, tasks: list[str], chances: Metrics) -> float:
    """Return one run's value in a column of the quality table, from its answers and losses."""
    if measure.metric == PERPLEXITY:
        return perplexity(run.windows, measure.name)
    if measure.metric == ACCURACY:
        return accuracy(run.questions, measure.name, "acc")
    scores = pd.Series({task: accuracy(run.questions, task, "acc") for task in tasks}, dtype=float)
    if measure.metric == AVERAGE:
        return float(scores.mean())
    return chance_corrected(scores, 100 * pd.Series(chances, dtype=float).reindex(tasks))


def check_kept(table: pd.DataFrame, runs: Runs) -> list[Finding]:
    """Return what in the column of parameters kept is not as the models' shapes say."""
    if "kept_percent" not in table:
        return []
    (base,) = next(iter(runs.values()))
    whole = parameters(shape_of(base.config))
    kept = {row: [100 * parameters(shape_of(run.config)) / whole for run in each] for row, each in runs.items()}
    return check_known(table, "kept_percent", by_row(table, kept), "the shapes in config.json", DECIMALS)


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
    """Return the share of right answers in percent, NaN where there is none."""
    return 100 * float(questions.loc[questions["task"] == task, metric].astype(float).mean())


def perplexity(windows: pd.DataFrame, name: str) -> float:
    """Return the perplexity over the windows of set `name`, NaN if there are none."""
    chosen = windows[windows["set"] == name]
    if chosen.empty:
        return math.nan
    return float(np.exp(mean_loss(chosen[["loss"]].to_numpy(dtype=float), chosen["tokens"].to_numpy(dtype=float))[0]))
