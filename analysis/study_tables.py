"""The tables of a study in the thesis's shapes: DataFrames of numbers for CSV, and of text for Markdown and LaTeX."""

from pathlib import Path

import numpy as np
import pandas as pd

from analysis.averages import average_accuracy, average_corrected, baseline_table, majority_shares
from analysis.contrasts import PERPLEXITY, Contrast
from analysis.results import Metrics, is_sparse, perplexity_sets, task_names
from analysis.rows import Result, Row
from analysis.tables import COSTS, DECIMALS, MISSING, cost_rows, markdown, memory_origin, number, span
from stages.common.outputs import staged

LEFT = 2  # columns of text: ratio and method
NOT_SCORES = ["ratio", "method", "kept_percent", "runs"]


def quality_numbers(base: Result, cells: list[Row], chances: Metrics) -> pd.DataFrame:
    """Return perplexities and accuracies (percent), a row a cell, base first; <column>_sd is the seeds' spread.

    The last rows are what takes no model.
    """
    columns = [(f"{name}_ppl", f"{name}_ppl", 1) for name in perplexity_sets({"base": base.evaluate})]
    tasks = task_names({"base": base.evaluate})
    columns += [(task, f"{task}_acc", 100) for task in tasks]
    rows = []
    for cell in [base_cell(base), *cells]:
        row = {**identity(cell), "kept_percent": 100 * cell.kept, "runs": len(cell.runs)}
        for column, metric, scale in columns:
            row |= spread(column, [scale * value for value in cell.values("evaluate", metric)])
        row |= spread("average", [100 * average_accuracy(run.evaluate, tasks) for run in cell.runs])
        row |= spread("chance_corrected", [100 * average_corrected(run.evaluate, tasks, chances) for run in cell.runs])
        rows.append(row)
    baselines = baseline_table(tasks, chances, majority_shares({"base": base.questions}))
    rows += [{"method": name, "runs": 0, **values} for name, values in baselines.iterrows()]
    return pd.DataFrame(rows).dropna(axis="columns", how="all")


def cost_numbers(base: Result, cells: list[Row]) -> pd.DataFrame:
    """Return what each cell costs, and each cost as percent of the base's (<metric>_percent).

    Parameters that are not zero are among them where a model is sparse.
    """
    rows = [base_cell(base), *cells]
    # What a format rounds to zero makes no model sparse.
    sparse = any(is_sparse(run.profile) for row in rows if not row.format for run in row.runs)
    costs = cost_rows([[run.profile for run in row.runs] for row in rows], sparse)
    table = pd.DataFrame([identity(row) | cost for row, cost in zip(rows, costs, strict=True)])
    unmeasured = [metric for metric, _, _ in COSTS if metric in table and table[metric].isna().all()]
    return table.drop(columns=[column for metric in unmeasured for column in (metric, f"{metric}_percent")])


def identity(cell: Row) -> dict:
    """Return the columns that say which cell a row is."""
    return {"ratio": cell.ratio, "method": cell.line}


def base_cell(base: Result) -> Row:
    """Return the base as a cell of its own."""
    return Row("base", 0.0, "base", [base], base)


def memory_text(base: Result, cells: list[Row]) -> str:
    """Return how the memory of base and cells was measured."""
    return memory_origin({cell.label: run.profile for cell in [base_cell(base), *cells] for run in cell.runs})


def spread(column: str, values: list[float]) -> dict[str, float]:
    """Return mean and, where there are several values, their standard deviation."""
    if not values:
        return {column: np.nan}
    return {column: float(np.mean(values))} | (
        {f"{column}_sd": float(np.std(values, ddof=1))} if len(values) > 1 else {}
    )


def quality_text(numbers: pd.DataFrame, cells: list[Row], contrasts: list[Contrast]) -> pd.DataFrame:
    """Return the quality table as it is printed: ± spread, ** around the best of a ratio, * for significance.

    `contrasts` are those of the cells with the base.
    """
    significant = {(each.model, each.column) for each in contrasts if each.significant}
    labels = dict(enumerate((cell.label for cell in cells), start=1))
    text = pd.DataFrame({"ratio": numbers["ratio"].map(ratio_text), "method": numbers["method"]})
    text["kept (%)"] = numbers["kept_percent"].map(lambda value: number(value, DECIMALS))
    for column in numbers.columns.difference(NOT_SCORES, sort=False):
        if not column.endswith("_sd"):
            best = best_of_ratio(numbers, column, lowest=column.endswith("_ppl"))
            heading = column.replace("_ppl", " PPL").replace("_corrected", "-corrected")
            text[heading] = [
                cell_text(row, column, number in best, (labels.get(number), column) in significant)
                for number, (_, row) in enumerate(numbers.iterrows())
            ]
    return text


def ratio_text(ratio: float) -> str:
    """Return a ratio as it is printed."""
    return MISSING if np.isnan(ratio) else f"{100 * ratio:g} %"


def best_of_ratio(numbers: pd.DataFrame, column: str, lowest: bool) -> set[int]:
    """Return the rows that are best of those with their ratio, where these differ; the base is none of them."""
    best = set()
    for _, group in numbers.iloc[1:].groupby("ratio"):
        values = group[column].round(DECIMALS)
        if values.nunique() > 1:
            best |= set(group.index[values == (values.min() if lowest else values.max())])
    return best


def cell_text(row: pd.Series, column: str, best: bool, significant: bool) -> str:
    """Return one number as it is printed."""
    if pd.isna(row[column]):
        return MISSING
    text = f"{row[column]:,.{DECIMALS}f}"
    deviation = row.get(f"{column}_sd", np.nan)
    text += "" if pd.isna(deviation) else f" ± {deviation:.{DECIMALS}f}"
    text = f"**{text}**" if best else text
    return text + (" *" if significant else "")


def cost_text(numbers: pd.DataFrame) -> pd.DataFrame:
    """Return the cost table as it is printed: every quantity with its percentage of the base's."""
    text = pd.DataFrame({"ratio": numbers["ratio"].map(ratio_text), "method": numbers["method"]})
    for metric, heading, decimals in COSTS:
        if metric in numbers:
            text[heading] = [number(value, decimals, thousands=True) for value in numbers[metric]]
            text[f"{heading.split(' (')[0]} (%)"] = [number(value, DECIMALS) for value in numbers[f"{metric}_percent"]]
    return text


def difference_text(cells: list[Row], contrasts: list[Contrast]) -> pd.DataFrame:
    """Return every cell's differences from the base: perplexity as a ratio with its interval, accuracy in points."""
    rows = []
    for cell in cells:
        row = {"ratio": ratio_text(cell.ratio), "method": cell.line}
        for each in contrasts:
            if each.model == cell.label:
                mark, found = " *" if each.significant else "", each.estimate
                if each.metric == PERPLEXITY:
                    interval = span(found.low, found.high, 3)
                    row[f"{each.name} PPL ratio"] = f"{found.value:.3f} ({interval}){mark}"
                else:
                    row[each.name] = f"{100 * found.value:+.{DECIMALS}f}{mark}"
        rows.append(row)
    return pd.DataFrame(rows)


def markdown_of(text: pd.DataFrame) -> str:
    """Return a table of text as Markdown."""
    return markdown(list(text), text.to_numpy().tolist(), left=LEFT)


def write_table(folder: Path, name: str, numbers: pd.DataFrame, text: pd.DataFrame, caption: str) -> None:
    """Write a table as <name>.md, .csv (numbers, not rounded) and .tex (booktabs)."""
    with staged(folder / f"{name}.csv") as file:
        numbers.to_csv(file, index=False)
    with staged(folder / f"{name}.md") as file:
        file.write_text(markdown_of(text) + "\n", encoding="utf-8")
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
