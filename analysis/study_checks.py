"""The audit run on a study's tables, each printed value against its row, what the runs measured, and their shapes."""

import numpy as np
import pandas as pd

from analysis.arithmetic import parameters, shape_of, stored_mib
from analysis.audit import CONTRADICTION, Finding, check_known
from analysis.averages import chance_corrected
from analysis.checks import accuracy, by_row, check_costs, check_quality, check_weights, perplexity
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
    quality = quality.set_axis([*labels, *quality["method"].iloc[len(rows) :]]).round(DECIMALS)
    costs = costs.set_axis(labels).round({metric: decimals for metric, _, decimals in COSTS})
    costs = costs.round({column: DECIMALS for column in costs if str(column).endswith("_percent")})
    findings = quality_findings(base, rows, chances, quality) + cost_findings(rows, costs, tokens)
    return [finding for finding in findings if finding.kind == CONTRADICTION]


def quality_findings(base: Result, rows: list[Row], chances: Metrics, table: pd.DataFrame) -> list[Finding]:
    """Return what in the quality table contradicts its row, the answers, the losses, their spread or the shapes."""
    sets, tasks = perplexity_sets({"base": base.evaluate}), task_names({"base": base.evaluate})
    columns = [*(f"{name}_ppl" for name in sets), *tasks, "average", "chance_corrected"]
    questions = {cell.label: [run.questions for run in cell.runs] for cell in rows}
    windows = {cell.label: [run.windows for run in cell.runs] for cell in rows}
    findings = check_quality(table.reindex(columns=columns), tasks, chances, questions, windows)
    repeated = {
        cell.label: [computed(run, sets, tasks, chances) for run in cell.runs] for cell in rows if len(cell.runs) > 1
    }
    for column in columns:
        if f"{column}_sd" in table:
            spread = {row: [float(np.std([run[column] for run in runs], ddof=1))] for row, runs in repeated.items()}
            known = by_row(table, spread)
            findings += check_known(table, f"{column}_sd", known, "standard deviation of the runs", DECIMALS)
    size = parameters(shape_of(base.config))
    kept = {cell.label: [100 * parameters(shape_of(run.config)) / size for run in cell.runs] for cell in rows}
    return findings + check_known(table, "kept_percent", by_row(table, kept), "the shapes in config.json", DECIMALS)


def computed(run: Result, sets: list[str], tasks: list[str], chances: Metrics) -> dict[str, float]:
    """Return one run's row of the quality table, from its answers and losses."""
    scores = pd.Series({task: accuracy(run.questions, task, "acc") for task in tasks}, dtype=float)
    averages = {
        "average": scores.mean(),
        "chance_corrected": chance_corrected(scores, 100 * pd.Series(chances, dtype=float).reindex(tasks)),
    }
    return {f"{name}_ppl": perplexity(run.windows, name) for name in sets} | scores.to_dict() | averages


def cost_findings(rows: list[Row], table: pd.DataFrame, tokens: int) -> list[Finding]:
    """Return what in the cost table contradicts its quotients or the models' shapes.

    The size of a GGUF's weights is that of its tensors, which no config.json tells.
    """
    shapes = {cell.label: [shape_of(run.config) for run in cell.runs] for cell in rows}
    checkpoints = [cell for cell in rows if not cell.format.startswith("gguf")]
    stored = {cell.label: [stored_mib(run.config) for run in cell.runs] for cell in checkpoints}
    on_cuda = {cell.label for cell in rows if any(run.profile.get("memory_on_cuda") for run in cell.runs)}
    return check_costs(table, shapes, tokens) + check_weights(table, stored, on_cuda)
