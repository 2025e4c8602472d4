"""The audit run on our own tables: each printed value against its row, the raw outcomes and the model's arithmetic.

A row of a table is one model, or the mean of several, so it is checked against a list.
"""

import math
from collections.abc import Callable
from functools import partial

import numpy as np
import pandas as pd

from analysis.arithmetic import exact_macs, parameters, shape_of, stored_mib
from analysis.audit import (
    CONTRADICTION,
    Finding,
    check_average,
    check_chance_corrected,
    check_known,
    check_share,
)
from analysis.averages import chance_corrected, mean
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
    findings += check_costs(costs, runs, tokens) + check_weights(costs, runs)
    if sizes is not None:
        findings += check_sizes(sizes, runs)
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
            known = means(table, runs, partial(perplexity, text=each.name))
            findings += check_known(table, each.column, known, "losses in windows.parquet", DECIMALS)
    return findings


def check_accuracies(table: pd.DataFrame, runs: Runs, tasks: list[str], metric: str) -> list[Finding]:
    """Return what in the columns `tasks` is not the share of right answers by `metric`, acc or acc_norm."""
    findings = []
    for task in tasks:
        known = means(table, runs, partial(accuracy, task=task, metric=metric))
        reason = f"share of right answers by {metric} in questions.parquet"
        findings += check_known(table, task, known, reason, DECIMALS)
    return findings


def check_spread(table: pd.DataFrame, runs: Runs, chances: Metrics) -> list[Finding]:
    """Return what is not the standard deviation of the row's runs, by their answers and losses."""
    columns, findings = measures(runs), []
    tasks = tasks_of(columns)
    repeated = {row: group for row, group in runs.items() if len(group) > 1}
    for each in columns if repeated else ():
        values = {row: [recomputed(run, each, tasks, chances) for run in group] for row, group in repeated.items()}
        known = pd.Series({row: np.std(found, ddof=1) for row, found in values.items()}, dtype=float)
        reason = "standard deviation of the runs"
        findings += check_known(table, each.spread, known.reindex(table.index), reason, DECIMALS)
    return findings


def recomputed(run: Result, measure: Measure, tasks: list[str], chances: Metrics) -> float:
    """Return one run's value in a column of the quality table, from its answers and losses."""
    if measure.metric == PERPLEXITY:
        return perplexity(run, measure.name)
    if measure.metric == ACCURACY:
        return accuracy(run, measure.name, "acc")
    scores = pd.Series({task: accuracy(run, task, "acc") for task in tasks}, dtype=float)
    if measure.metric == AVERAGE:
        return float(scores.mean())
    return chance_corrected(scores, 100 * pd.Series(chances, dtype=float).reindex(tasks))


def check_kept(table: pd.DataFrame, runs: Runs) -> list[Finding]:
    """Return what in the column of parameters kept is not as the models' shapes say."""
    if "kept_percent" not in table:
        return []
    counted = means(table, runs, count)
    return check_known(table, "kept_percent", 100 * counted / counted.iloc[0], "the shapes in config.json", DECIMALS)


def check_costs(table: pd.DataFrame, runs: Runs, tokens: int) -> list[Finding]:
    """Return what in the cost table contradicts its own quotients or the closed formulas for the models' shapes.

    The first row is the base.
    """
    findings = []
    for metric, _, decimals in COSTS:
        if metric in table:
            whole = table.assign(base=table[metric].iloc[0])
            findings += check_share(whole, f"{metric}_percent", metric, "base", DECIMALS, decimals)
    findings += check_known(table, "parameters", means(table, runs, count), "the shape in config.json", 0)
    gmacs = means(table, runs, lambda run: exact_macs(shape_of(run.config), tokens) / 1e9 if run.config else math.nan)
    return findings + check_known(table, "gmacs", gmacs, f"the shape in config.json, {tokens} tokens", 4, MAC_TOLERANCE)


def check_weights(table: pd.DataFrame, runs: Runs) -> list[Finding]:
    """Return the rows whose weights are not as large as config.json says; on CUDA they may be somewhat more."""
    findings = []
    for on_cuda, tolerance in ((True, BLOCK_TOLERANCE), (False, BUFFER_TOLERANCE)):
        alike = {row: group for row, group in runs.items() if any(map(measured_on_cuda, group)) == on_cuda}
        reason = f"shape and dtype in config.json, {tolerance:.1%} tolerance"
        if "weights_mib" in table:
            findings += check_known(table, "weights_mib", means(table, alike, stored), reason, DECIMALS, tolerance)
    return findings


def check_sizes(table: pd.DataFrame, runs: Runs) -> list[Finding]:
    """Return what in the table of parameters before and after pruning contradicts its row or the models' shapes."""
    if table.empty:
        return []
    findings = check_share(table, "kept_percent", "after", "before", DECIMALS, 0)
    if "nonzero" in table:
        findings += check_share(table, "nonzero_percent", "nonzero", "before", DECIMALS, 0)
    for column, model in (("before", "base"), ("after", "pruned")):
        known = means(table, {"pruned": runs[model]}, count)
        findings += check_known(table, column, known, f"the {model} model's shape in config.json", 0)
    return findings


def means(table: pd.DataFrame, runs: Runs, value: Callable[[Result], float]) -> pd.Series:
    """Return the mean of `value` over the runs of each row of `table`, NaN where it has none."""
    return pd.Series({row: mean([value(run) for run in group]) for row, group in runs.items()}).reindex(table.index)


def count(run: Result) -> float:
    """Return the parameters that a model's config.json describes, NaN without one."""
    return float(parameters(shape_of(run.config))) if run.config else math.nan


def stored(run: Result) -> float:
    """Return the size of the weights in MiB that config.json describes; NaN of a GGUF's, which are its tensors'."""
    return stored_mib(run.config) if run.config and "gguf" not in run.model else math.nan


def measured_on_cuda(run: Result) -> bool:
    """Return whether CUDA's allocator measured the weights."""
    return bool(run.profile.get("memory_on_cuda"))


def accuracy(run: Result, task: str, metric: str) -> float:
    """Return the share of right answers in percent, NaN where there is none."""
    return 100 * float(run.questions.loc[run.questions["task"] == task, metric].astype(float).mean())


def perplexity(run: Result, text: str) -> float:
    """Return the perplexity over the windows of `text`, NaN if there are none."""
    chosen = run.windows[run.windows["set"] == text]
    if chosen.empty:
        return math.nan
    return float(np.exp(mean_loss(chosen[["loss"]].to_numpy(dtype=float), chosen["tokens"].to_numpy(dtype=float))[0]))
