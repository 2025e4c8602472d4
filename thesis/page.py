"""The page reports/thesis.md: the thesis's printed tables, the recomputed values, and ours."""

from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd

from analysis.averages import chance_corrected
from analysis.tables import MISSING, findings_markdown, markdown, number
from thesis.arithmetic import PRINTED_BASE_MACS, THESIS_TOKENS
from thesis.printed import (
    TASKS,
    audit_cost,
    audit_quality,
    counted_costs,
    read_claims,
    read_cost,
    read_quality,
    read_ratios,
    read_tasks,
    true_costs,
)

SETS = {"wikitext2_ppl": "WikiText2", "ptb_ppl": "PTB"}


@dataclass(frozen=True)
class Ours:
    """Our values, to stand beside the printed ones."""

    origin: str  # sentences that say where they come from
    quality: pd.DataFrame  # SETS and TASKS (percent), indexed like the printed table; empty if nothing was measured
    costs: pd.DataFrame  # ratio, source, parameters, thesis_macs, exact_macs, weights_mib; the base first


def by_arithmetic() -> Ours:
    """Return what takes no weights: the costs of TinyLlama as this pipeline prunes it at the thesis's ratios."""
    origin = (
        "*Ours* are those of this pipeline by arithmetic alone, from TinyLlama's shape in bfloat16, which takes no\n"
        "weights. `make thesis` writes what it measured on weights, including quality, beside the printed values:\n"
        "`reports/thesis/thesis.md`."
    )
    return Ours(origin, pd.DataFrame(), counted_costs(read_cost()["ratio"]).assign(source="ours"))


def quality_markdown(table: pd.DataFrame, tasks: pd.DataFrame, ours: pd.DataFrame) -> str:
    """Return the scores, ours below the printed ones; averages as printed, and recomputed raw and chance-corrected."""
    rows = []
    for name, printed in table.iterrows():
        rows.append([str(name), "printed", *scored(printed, tasks, printed["average"])])
        if name in ours.index:
            scores = ours.loc[name, TASKS].astype(float)
            rows.append(["", "ours", *scored(ours.loc[name], tasks, scores.mean(skipna=False))])
    for name, column in (("guessing", "chance"), ("majority answer", "majority")):
        rows.append([name, "", *scored(tasks[column].reindex([*SETS, *TASKS]), tasks, float("nan"))])
    return markdown(
        ["model", "source", *SETS.values(), *TASKS, "average", "recomputed", "chance-corrected"], rows, left=2
    )


def scored(values: pd.Series, tasks: pd.DataFrame, average: float) -> list[str]:
    """Return one row's cells: its scores, its `average` as printed, and both averages computed from the scores."""
    scores = values[TASKS].astype(float)
    averages = [average, scores.mean(skipna=False), chance_corrected(scores, tasks.loc[TASKS, "chance"])]
    return [number(float(cell), 2, thousands=True) for cell in [*values[list(SETS)], *scores, *averages]]


def against_majority(scores: pd.DataFrame, tasks: pd.DataFrame) -> str:
    """Return a sentence per task with a majority answer: which models score above always giving it."""
    sentences = []
    for task, majority in tasks["majority"].dropna().items():
        above = [str(name) for name, score in scores[task].items() if score > majority]
        place = f"only {', '.join(above)} scored higher" if above else "no model here scored higher"
        sentences.append(f"On {task}, always giving the more frequent answer scores {majority:.2f}; {place}.")
    return " ".join(sentences)


def side_by_side(
    printed: pd.DataFrame,
    ours: pd.DataFrame,
    printed_cells: Callable[[pd.Series], list],
    our_cells: Callable[[pd.Series], list],
) -> list[list[str]]:
    """Return the rows of a table of costs: per ratio as printed, recomputed, and ours.

    `printed_cells` makes the cells of a row of the thesis, `our_cells` those of one of ours.
    """
    true, rows = true_costs(printed), []
    for row, values in printed.iterrows():
        rows.append([f"{100 * values['ratio']:g} %", "printed", *printed_cells(values)])
        rows.append(["", "recomputed", *printed_cells(true.loc[row])])
        for _, each in ours[ours["ratio"] == values["ratio"]].iterrows():
            rows.append(["", each["source"], *our_cells(each)])
    return rows


def parameters_markdown(printed: pd.DataFrame, ours: pd.DataFrame) -> str:
    """Return table 3: parameters before and after pruning, and the share kept."""
    before = ours["parameters"].iloc[0]

    def printed_cells(row: pd.Series) -> list[str]:
        counts = [f"{row[f'params_{when}_millions']:,.2f} M" for when in ("before", "after")]
        return [*counts, number(row["params_kept_percent"], 2)]

    def our_cells(row: pd.Series) -> list[str]:
        after = row["parameters"]
        return [number(before, 0, True), number(after, 0, True), number(100 * after / before, 2)]

    headings = ["specified ratio", "source", "before", "after", "kept (%)"]
    return markdown(headings, side_by_side(printed, ours, printed_cells, our_cells), left=2)


def costs_markdown(printed: pd.DataFrame, ours: pd.DataFrame) -> str:
    """Return table 7: multiply-accumulates by both conventions and memory, each with its share of the base's."""
    base = ours.iloc[0]

    def printed_cells(row: pd.Series) -> list[str]:
        memory = [number(row[f"gpu_memory_{unit}"], 2, True) for unit in ("mib", "percent")]
        return [f"{row['gmacs']:.2f} G", number(row["gmacs_percent"], 2), MISSING, MISSING, *memory]

    def our_cells(row: pd.Series) -> list[str]:
        columns = (("thesis_macs", 0), ("exact_macs", 0), ("weights_mib", 2))
        return [
            text
            for column, digits in columns
            for text in (number(row[column], digits, True), number(100 * row[column] / base[column], 2))
        ]

    headings = ["specified ratio", "source", "MACs, `thesis`", "%", "MACs, `exact`", "%", "memory (MiB)", "%"]
    return markdown(headings, side_by_side(printed, ours, printed_cells, our_cells), left=2)


def thesis_report(ours: Ours | None = None) -> str:
    """Return the whole page as Markdown, with `ours` beside the printed values, or without it what arithmetic gives."""
    ours = ours or by_arithmetic()
    quality, cost, tasks = read_quality(), read_cost(), read_tasks()
    findings = audit_quality(quality, read_claims(), read_ratios()) + audit_cost(cost)
    measured = ours.quality.reindex(columns=[*SETS, *TASKS])
    scores = pd.concat([quality[TASKS], measured[TASKS].rename(index=lambda name: f"{name} (ours)")])
    absent = [str(name) for name in quality.index if name not in measured.index]
    lacking = f"Not measured here yet: {', '.join(absent)}.\n" if absent and len(measured) else ""
    return f"""# The thesis's tables, printed, recomputed and ours

*Printed*: Kai Daniel Herbst and Sebastian Viet, "Analyse der Auswirkungen von Pruning an Large Language Models",
project thesis, FOM Hochschule für Ökonomie & Management, 2025. TinyLlama-1.1B-Chat, pruned by LLM-Pruner in layers 4 to
17. *Recomputed*: from the row itself, or by the arithmetic of TinyLlama's shape and the thesis's own convention.
{ours.origin}

## What contradicts itself

A value printed with two digits stands for anything within half a unit of the second. Such rounding
cannot explain a *contradiction*; it can explain a difference in the *last digit*.

{findings_markdown(findings)}

## Tables 2, 4, 5, 6: quality

Accuracy in percent. The recomputed averages are over the row's tasks, raw and chance-corrected: mean of
(accuracy - chance) / (1 - chance), where 0 is guessing.
{lacking}{against_majority(scores, tasks)}

{quality_markdown(quality, tasks, measured)}

## Table 3: parameters

Recomputed from TinyLlama's shape (grouped-query attention, 4 KV heads for 32 query heads) and LLM-Pruner's rule. The
printed count before pruning is that of a class without grouped-query attention.

{parameters_markdown(cost, ours.costs)}

## Table 7: computation and memory

Multiply-accumulates of {THESIS_TOKENS} tokens by two conventions. `thesis`, by which its pruned rows were counted: all
linear weights once per token, and two multiplications per MLP channel. Its base was counted by another convention,
{PRINTED_BASE_MACS:,}, so the printed percentages are not comparable. `exact`: all linear weights and attention's two
products, as ptflops counts them by its aten backend with eager attention. Memory recomputed is that of float16 weights
alone; the printed one holds the activations too.

{costs_markdown(cost, ours.costs)}
"""
