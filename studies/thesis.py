"""reports/thesis/thesis.md: what the thesis's study measured, beside the thesis's printed values."""

import numpy as np
import pandas as pd

from stages.report.arithmetic import shape_of, thesis_macs
from stages.report.printed import TASKS, read_quality
from stages.report.thesis import SETS, Ours
from studies.measured import Cell, Measured
from studies.tables import base_cell, memory_text

NAME = "thesis"  # of the study: studies/thesis.yaml


def measured(base: Measured, cells: list[Cell], quality: pd.DataFrame, costs: pd.DataFrame) -> Ours:
    """Return the rows of the study's tables `quality` and `costs` that the thesis has too, named as there."""
    rows = [base_cell(base), *cells]
    names = [row_name(cell) for cell in rows]
    there = [name in read_quality().index for name in names]
    scores = quality.iloc[: len(rows)].set_axis(names).reindex(columns=[*SETS, *TASKS])
    tokens = base.variant.params["profile"]["sequence_length"]
    spent = pd.DataFrame(
        {
            "ratio": costs["ratio"],
            "source": ["ours", *(f"ours, {cell.line}" for cell in cells)],
            "parameters": costs["parameters"],
            "thesis_macs": [np.mean([thesis_macs(shape_of(run.config), tokens) for run in cell.runs]) for cell in rows],
            "exact_macs": 1e9 * costs["gmacs"],
            "weights_mib": costs["weights_mib"],
        }
    )
    origin = (
        f"*Ours* are those of [study.md](study.md), where they are checked: quality and parameters as measured, MACs\n"
        f"of {tokens} tokens, `exact` as counted on the models, `thesis` by the shapes in their config.json.\n"
        f"{memory_text(base, cells)}"
    )
    return Ours(origin, scores[there], spent[there])


def row_name(cell: Cell) -> str:
    """Return what the thesis's tables call the row."""
    if not cell.ratio:
        return cell.line
    recovered = [cell.model] if cell.model != "pruned" else []
    return " ".join([cell.method, str(cell.ratio), *recovered])
