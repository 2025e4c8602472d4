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
from analysis.results import Metrics, task_names
from analysis.rows import Result
from analysis.significance import mean_loss
from analysis.tables import COSTS, DECIMALS

# What a MAC counter may add to the closed formula: the rotary angles, a few multiplications per token and layer.
MAC_TOLERANCE = 0.001
# What weights are more than their parameters: the rotary frequencies, and on CUDA the ends of the allocator's blocks.
BUFFER_TOLERANCE, BLOCK_TOLERANCE = 0.001, 0.05

Outcomes = dict[str, list[pd.DataFrame]]  # by row of the table


def contradictions(
    runs: dict[str, list[Result]],
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
    questions = {row: [run.questions for run in each] for row, each in runs.items()}
    findings = check_quality(quality, scored_tasks(runs), chances, questions, windows_of(runs))
    findings += check_spread(quality, runs, chances) + check_kept(quality, runs)
    if norms is not None:
        findings += check_accuracies(norms, questions, "acc_norm")
    shapes = {row: [shape_of(run.config) for run in each if run.config] for row, each in runs.items()}
    # The size of a GGUF's weights is that of its tensors, which no config.json gives.
    dense = {row: [run for run in each if run.config and "gguf" not in run.model] for row, each in runs.items()}
    stored = {row: [stored_mib(run.config) for run in each] for row, each in dense.items()}
    on_cuda = {row for row, each in runs.items() if any(run.profile.get("memory_on_cuda") for run in each)}
    findings += check_costs(costs, shapes, tokens) + check_weights(costs, stored, on_cuda)
    if sizes is not None:
        findings += check_sizes(sizes, shapes)
    return [finding for finding in findings if finding.kind == CONTRADICTION]


def scored_tasks(runs: dict[str, list[Result]]) -> list[str]:
    """Return the tasks that some model was scored on."""
    return task_names({run.label: run.evaluate for each in runs.values() for run in each})


def windows_of(runs: dict[str, list[Result]]) -> Outcomes:
    """Return the windows' losses by row."""
    return {row: [run.windows for run in each] for row, each in runs.items()}


def check_spread(table: pd.DataFrame, runs: dict[str, list[Result]], chances: Metrics) -> list[Finding]:
    """Return what in the columns <column>_sd is not the standard deviation of the row's runs."""
    columns = [str(column).removesuffix("_sd") for column in table if str(column).endswith("_sd")]
    if not columns:
        return []
    tasks = scored_tasks(runs)
    repeated = {
        row: [recomputed(run, columns, tasks, chances) for run in each] for row, each in runs.items() if len(each) > 1
    }
    findings = []
    for column in columns:
        known = {row: [float(np.std([each[column] for each in found], ddof=1))] for row, found in repeated.items()}
        reason = "standard deviation of the runs"
        findings += check_known(table, f"{column}_sd", by_row(table, known), reason, DECIMALS)
    return findings


def recomputed(run: Result, columns: list[str], tasks: list[str], chances: Metrics) -> dict[str, float]:
    """Return one run's row of the quality table, from its answers and losses."""
    scores = pd.Series({task: accuracy(run.questions, task, "acc") for task in tasks}, dtype=float)
    sets = [column.removesuffix("_ppl") for column in columns if column.endswith("_ppl")]
    averages = {
        "average": scores.mean(),
        "chance_corrected": chance_corrected(scores, 100 * pd.Series(chances, dtype=float).reindex(tasks)),
    }
    return {f"{name}_ppl": perplexity(run.windows, name) for name in sets} | scores.to_dict() | averages


def check_kept(table: pd.DataFrame, runs: dict[str, list[Result]]) -> list[Finding]:
    """Return what in the column of parameters kept is not as the models' shapes say."""
    if "kept_percent" not in table:
        return []
    (base,) = next(iter(runs.values()))
    whole = parameters(shape_of(base.config))
    kept = {row: [100 * parameters(shape_of(run.config)) / whole for run in each] for row, each in runs.items()}
    return check_known(table, "kept_percent", by_row(table, kept), "the shapes in config.json", DECIMALS)


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
    """Return the share of right answers in percent, NaN where there is none."""
    return 100 * float(questions.loc[questions["task"] == task, metric].astype(float).mean())


def perplexity(windows: pd.DataFrame, name: str) -> float:
    """Return the perplexity over the windows of set `name`, NaN if there are none."""
    chosen = windows[windows["set"] == name]
    if chosen.empty:
        return math.nan
    return float(np.exp(mean_loss(chosen[["loss"]].to_numpy(dtype=float), chosen["tokens"].to_numpy(dtype=float))[0]))
