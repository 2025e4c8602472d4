"""The audit run on our own tables: each printed value against its row, the raw outcomes and the model's arithmetic."""

import math

import numpy as np
import pandas as pd

from stages.report.arithmetic import Shape, exact_macs, parameters
from stages.report.audit import Finding, check_average, check_known, check_share
from stages.report.results import MODELS
from stages.report.significance import mean_loss
from stages.report.tables import COSTS, DECIMALS

# What a MAC counter may add to the closed formula: the rotary angles, a few multiplications per token and layer.
MAC_TOLERANCE = 0.001


def check_quality(
    table: pd.DataFrame, tasks: list[str], questions: dict[str, pd.DataFrame], windows: dict[str, pd.DataFrame]
) -> list[Finding]:
    """Return what in the quality table contradicts its row's mean, the models' answers or the windows' losses."""
    findings = check_average(table, "average", tasks, DECIMALS)
    for task in tasks:
        known = {model: 100 * frame.loc[frame["task"] == task, "acc"].mean() for model, frame in questions.items()}
        findings += check_known(table, task, by_model(known), "share of right answers in questions.parquet", DECIMALS)
    for column in table:
        if column.endswith("_ppl"):
            known = {model: perplexity(frame, column.removesuffix("_ppl")) for model, frame in windows.items()}
            findings += check_known(table, column, by_model(known), "losses in windows.parquet", DECIMALS)
    return findings


def check_costs(table: pd.DataFrame, shapes: dict[str, Shape], tokens: int) -> list[Finding]:
    """Return what in the cost table contradicts its own quotients or the closed formulas for the models' shapes."""
    findings = []
    for metric, _, decimals in COSTS:
        if metric not in table:
            continue
        whole = table.assign(base=table.loc["base", metric])
        findings += check_share(whole, f"{metric}_percent", metric, "base", DECIMALS, decimals)
    counted = {model: float(parameters(shape)) for model, shape in shapes.items()}
    findings += check_known(table, "parameters", by_model(counted), "the shape in config.json", 0)
    computed = {model: exact_macs(shape, tokens) / 1e9 for model, shape in shapes.items()}
    reason = f"the shape in config.json, {tokens} tokens"
    return findings + check_known(table, "gmacs", by_model(computed), reason, 4, MAC_TOLERANCE)


def check_sizes(table: pd.DataFrame, shapes: dict[str, Shape]) -> list[Finding]:
    """Return what in the table of parameters before and after pruning contradicts its row or the models' shapes."""
    if table.empty:
        return []
    findings = check_share(table, "kept_percent", "after", "before", DECIMALS, 0)
    if "nonzero" in table:
        findings += check_share(table, "nonzero_percent", "nonzero", "before", DECIMALS, 0)
    for column, model in (("before", "base"), ("after", "pruned")):
        if model in shapes:
            known = pd.Series({"pruned": float(parameters(shapes[model]))})
            findings += check_known(table, column, known, f"the {model} model's shape in config.json", 0)
    return findings


def by_model(values: dict[str, float]) -> pd.Series:
    """Return the values as a column that has every model, NaN where there is no value."""
    return pd.Series({model: values.get(model, math.nan) for model in MODELS})


def perplexity(windows: pd.DataFrame, name: str) -> float:
    """Return the perplexity over the windows of set `name`, NaN if there are none."""
    chosen = windows[windows["set"] == name]
    if chosen.empty:
        return math.nan
    return float(np.exp(mean_loss(chosen[["loss"]].to_numpy(dtype=float), chosen["tokens"].to_numpy(dtype=float))[0]))
