"""The audit of a study's tables."""

import pandas as pd

from analysis import checks
from analysis.audit import Finding
from analysis.results import Metrics, perplexity_sets, task_names
from analysis.rows import Result, Row
from analysis.study_tables import base_cell
from analysis.tables import COSTS, DECIMALS


def contradictions(
    base: Result, cells: list[Row], chances: Metrics, quality: pd.DataFrame, costs: pd.DataFrame, tokens: int
) -> list[Finding]:
    """Return what in the tables `quality` and `costs`, as they are printed, contradicts itself or its source."""
    rows = [base_cell(base), *cells]
    labels = [cell.label for cell in rows]
    every = {"base": base.evaluate}
    columns = [*(f"{name}_ppl" for name in perplexity_sets(every)), *task_names(every), "average", "chance_corrected"]
    spreads = [f"{column}_sd" for column in columns if f"{column}_sd" in quality]
    quality = quality.set_axis([*labels, *quality["method"].iloc[len(rows) :]]).round(DECIMALS)
    quality = quality.reindex(columns=[*columns, *spreads, "kept_percent"])
    costs = costs.set_axis(labels).round({metric: decimals for metric, _, decimals in COSTS})
    costs = costs.round({column: DECIMALS for column in costs if str(column).endswith("_percent")})
    return checks.contradictions({cell.label: cell.runs for cell in rows}, quality, costs, chances, tokens)
