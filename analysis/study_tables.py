"""The tables of a study in the thesis's shapes: DataFrames of numbers for CSV, and of text for Markdown and LaTeX."""

from pathlib import Path

import numpy as np
import pandas as pd

from analysis import quality, tables
from analysis.contrasts import PERPLEXITY, Contrast
from analysis.results import Metrics
from analysis.rows import Result, Row, Runs
from analysis.tables import COSTS, DECIMALS, MISSING, number, span, text_markdown
from stages.common.outputs import staged

LEFT = 2  # columns of text: ratio and method


def base_row(base: Result) -> Row:
    """Return the base as a row of its own."""
    return Row("base", 0.0, "base", [base], base)


def runs_of(base: Result, rows: list[Row]) -> Runs:
    """Return the runs of every row by its label, the base first."""
    return {row.label: row.runs for row in [base_row(base), *rows]}


def quality_numbers(base: Result, rows: list[Row], chances: Metrics) -> pd.DataFrame:
    """Return the scores of analysis/quality.py by row, with ratio, method, the share kept (percent) and the runs."""
    scores = quality.quality_numbers(runs_of(base, rows), chances)
    identity = {
        row.label: {"ratio": row.ratio, "method": row.line, "kept_percent": 100 * row.kept, "runs": len(row.runs)}
        for row in [base_row(base), *rows]
    }
    for name in scores.index.difference(list(identity), sort=False):  # what takes no model
        identity[name] = {"ratio": np.nan, "method": name, "kept_percent": np.nan, "runs": 0}
    return pd.DataFrame.from_dict(identity, orient="index").join(scores)


def cost_numbers(base: Result, rows: list[Row]) -> pd.DataFrame:
    """Return the costs of analysis/tables.py by row, with ratio and method; without those that no row has."""
    costs = tables.cost_numbers(runs_of(base, rows))
    unmeasured = [metric for metric, _, _ in COSTS if metric in costs and costs[metric].isna().all()]
    costs = costs.drop(columns=[column for metric in unmeasured for column in (metric, f"{metric}_percent")])
    identity = {row.label: {"ratio": row.ratio, "method": row.line} for row in [base_row(base), *rows]}
    return pd.DataFrame.from_dict(identity, orient="index").join(costs)


def quality_text(numbers: pd.DataFrame, columns: list[quality.Measure], contrasts: list[Contrast]) -> pd.DataFrame:
    """Return the quality table as it is printed: ± spread, ** around the best of a ratio, * for significance.

    `contrasts` are those of the rows with the base.
    """
    identity = identity_text(numbers)
    identity["kept (%)"] = numbers["kept_percent"].map(lambda value: number(value, DECIMALS))
    spreads = {
        (row, each.column): deviation
        for each in columns
        if each.spread in numbers
        for row, deviation in numbers[each.spread].items()
    }
    best = quality.best_of_ratio(numbers, numbers["ratio"].drop("base"), columns)
    return quality.quality_text(numbers, columns, identity, spreads, quality.marks_of(contrasts), best)


def cost_text(numbers: pd.DataFrame) -> pd.DataFrame:
    """Return the cost table as it is printed."""
    return tables.cost_text(numbers, identity_text(numbers))


def identity_text(numbers: pd.DataFrame) -> pd.DataFrame:
    """Return the columns that say which row it is, as they are printed."""
    return pd.DataFrame({"ratio": numbers["ratio"].map(ratio_text), "method": numbers["method"]})


def ratio_text(ratio: float) -> str:
    """Return a ratio as it is printed."""
    return MISSING if np.isnan(ratio) else f"{100 * ratio:g} %"


def difference_text(rows: list[Row], contrasts: list[Contrast]) -> pd.DataFrame:
    """Return every row's differences from the base: perplexity as a ratio with its interval, accuracy in points."""
    lines = []
    for row in rows:
        line = {"ratio": ratio_text(row.ratio), "method": row.line}
        for each in contrasts:
            if each.model == row.label:
                mark, found = " *" if each.significant else "", each.estimate
                if each.metric == PERPLEXITY:
                    interval = span(found.low, found.high, 3)
                    line[f"{each.name} PPL ratio"] = f"{found.value:.3f} ({interval}){mark}"
                else:
                    line[each.name] = f"{100 * found.value:+.{DECIMALS}f}{mark}"
        lines.append(line)
    return pd.DataFrame(lines)


def write_table(folder: Path, name: str, numbers: pd.DataFrame, text: pd.DataFrame, caption: str) -> None:
    """Write a table as <name>.md, .csv (numbers, not rounded) and .tex (booktabs)."""
    with staged(folder / f"{name}.csv") as file:
        numbers.to_csv(file, index=False)
    with staged(folder / f"{name}.md") as file:
        file.write_text(text_markdown(text, LEFT) + "\n", encoding="utf-8")
    with staged(folder / f"{name}.tex") as file:
        file.write_text(latex_of(text, name, caption), encoding="utf-8")


def latex_of(text: pd.DataFrame, name: str, caption: str) -> str:
    """Return a table of text as LaTeX, for the packages booktabs and graphicx."""
    cells = text.map(latex_cell).rename(columns=latex_cell)
    form = "l" * LEFT + "r" * (len(text.columns) - LEFT)
    return cells.to_latex(
        index=False, column_format=form, caption=latex_cell(caption), label=f"tab:{name}", position="t"
    )


def latex_cell(text: str) -> str:
    """Return text of a cell in LaTeX: special characters escaped, ** as bold, ± as a sign."""
    bold = "**" in text
    for character in "%_&#":
        text = text.replace("**", "").replace(character, f"\\{character}")
    text = text.replace("±", r"$\pm$").replace(" *", r"$^{*}$").replace("⁹", "$^9$")
    if not bold:
        return text
    value, star, rest = text.partition("$^{*}$")
    return rf"\textbf{{{value}}}{star}{rest}"
