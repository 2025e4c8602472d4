"""The quality table: perplexities, accuracies and their averages, a row a model of a run or a variant of a study."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.averages import average_accuracy, average_corrected, baseline_table, majority_shares
from analysis.contrasts import ACCURACY, PERPLEXITY, Contrast
from analysis.results import Metrics, names_with, perplexity_sets, task_names
from analysis.rows import Result, Runs
from analysis.tables import DECIMALS, MISSING

AVERAGE, CORRECTED = "average", "chance_corrected"
Cell = tuple[str, str]  # the row's label and the measure's column


@dataclass(frozen=True)
class Measure:
    """A column of the table."""

    column: str  # its name among numbers and in a CSV
    heading: str  # its name on a page
    metric: str  # PERPLEXITY, ACCURACY, AVERAGE or CORRECTED
    name: str = ""  # the text or the task

    @property
    def key(self) -> str:
        """What evaluate names it, where it is no average."""
        return f"{self.name}_{self.metric}"

    @property
    def spread(self) -> str:
        """The column of its standard deviation over the runs of a row."""
        return f"{self.column}_sd"


def measures(runs: Runs) -> list[Measure]:
    """Return the columns of what some run measured: texts, tasks, and averages where there are tasks."""
    evaluate = {run.label: run.evaluate for group in runs.values() for run in group}
    texts, tasks = perplexity_sets(evaluate), task_names(evaluate)
    averages = [Measure(AVERAGE, "average", AVERAGE), Measure(CORRECTED, "chance-corrected", CORRECTED)]
    return [
        *(Measure(f"{name}_ppl", f"{name} PPL", PERPLEXITY, name) for name in texts),
        *(Measure(name, name, ACCURACY, name) for name in tasks),
        *(averages if tasks else []),
    ]


def tasks_of(columns: list[Measure]) -> list[str]:
    """Return the tasks among the columns."""
    return [measure.name for measure in columns if measure.metric == ACCURACY]


def quality_numbers(runs: Runs, chances: Metrics) -> pd.DataFrame:
    """Return perplexities, accuracies and averages (percent) by row: means over its runs, NaN where none has it.

    <column>_sd is the spread of rows of several runs. The last rows are what takes no model.
    """
    columns = measures(runs)
    tasks, repeated = tasks_of(columns), any(len(group) > 1 for group in runs.values())
    rows = {}
    for label, group in runs.items():
        found = {each: [measured(run, each, tasks, chances) for run in group] for each in columns}
        known = {each: [value for value in values if not math.isnan(value)] for each, values in found.items()}
        rows[label] = {each.column: float(np.mean(values)) if values else math.nan for each, values in known.items()}
        if repeated:
            rows[label] |= {each.spread: deviation(values) for each, values in known.items()}
    numbers = pd.DataFrame.from_dict(rows, orient="index", dtype=float)
    answers = {label: group[0].questions for label, group in runs.items() if len(group[0].questions)}
    baselines = baseline_table(tasks, chances, majority_shares(answers)) if tasks else pd.DataFrame()
    return pd.concat([numbers, baselines]) if len(baselines) else numbers


def measured(run: Result, measure: Measure, tasks: list[str], chances: Metrics) -> float:
    """Return a run's value in a column, accuracies in percent; NaN where it was not measured."""
    if measure.metric == AVERAGE:
        return 100 * average_accuracy(run.evaluate, tasks)
    if measure.metric == CORRECTED:
        return 100 * average_corrected(run.evaluate, tasks, chances)
    return (100 if measure.metric == ACCURACY else 1) * run.evaluate.get(measure.key, math.nan)


def deviation(values: list[float]) -> float:
    """Return the standard deviation of several values, NaN of fewer."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else math.nan


def norm_numbers(runs: Runs) -> pd.DataFrame:
    """Return the accuracies by log-likelihood per character (percent), of the tasks that define it."""
    evaluate = {label: run.evaluate for label, (run,) in runs.items()}
    tasks = names_with(evaluate, "_acc_norm")
    rows = {
        label: {task: 100 * metrics.get(f"{task}_acc_norm", math.nan) for task in tasks}
        for label, metrics in evaluate.items()
    }
    return pd.DataFrame.from_dict(rows, orient="index", dtype=float)


def plot_rows(runs: Runs, metric: str, place: str, value: str) -> list[dict[str, str | float]]:
    """Return one row per measured perplexity or accuracy, for `dvc plots`: model, `place`, label and `value`."""
    return [
        {"model": run.model, place: each.name, "label": f"{each.name}, {run.model}", value: run.evaluate[each.key]}
        for each in measures(runs)
        if each.metric == metric
        for (run,) in runs.values()
        if each.key in run.evaluate
    ]


def quality_text(
    numbers: pd.DataFrame,
    columns: list[Measure],
    identity: pd.DataFrame,
    spreads: dict[Cell, float],
    marks: dict[Cell, str],
    best: Iterable[Cell] = (),
) -> pd.DataFrame:
    """Return the table as it is printed: the columns of `identity`, then ± spread, ** around the best, and marks."""
    text = identity.copy()
    for each in columns:
        text[each.heading] = [
            cell_text(value, spreads.get((row, each.column), math.nan), (row, each.column) in best)
            + marks.get((row, each.column), "")
            for row, value in numbers[each.column].items()
        ]
    return text


def cell_text(value: float, spread: float, best: bool) -> str:
    """Return one number as it is printed."""
    if math.isnan(value):
        return MISSING
    text = f"{value:,.{DECIMALS}f}" + ("" if math.isnan(spread) else f" ± {spread:.{DECIMALS}f}")
    return f"**{text}**" if best else text


def marks_of(contrasts: list[Contrast]) -> dict[Cell, str]:
    """Return * where a row differs significantly from the base, † where it differs from another."""
    marks: dict[Cell, str] = {}
    for each in contrasts:
        if each.significant:
            cell = each.model, each.column
            marks[cell] = (marks.get(cell) or " ") + ("*" if each.reference == "base" else "†")
    return marks


def best_of_ratio(numbers: pd.DataFrame, ratios: pd.Series, columns: list[Measure]) -> set[Cell]:
    """Return the cells that are the best of the rows with their ratio, where these differ.

    `ratios` are by row; the base and what takes no model have none.
    """
    best: set[Cell] = set()
    for each in columns:
        for _, group in numbers[each.column].round(DECIMALS).groupby(ratios):
            if group.nunique() > 1:
                wanted = group.min() if each.metric == PERPLEXITY else group.max()
                best |= {(str(row), each.column) for row in group.index[group == wanted]}
    return best
