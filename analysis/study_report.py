"""Write reports/<study>/: tables, figures and the page."""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from analysis.checks import contradictions
from analysis.contrasts import Contrast, accuracy_contrasts, perplexity_contrasts
from analysis.losses import losses_by_text
from analysis.params import ReportParams
from analysis.quality import measures
from analysis.results import Metrics
from analysis.rows import Result, Row
from analysis.study_page import study_page
from analysis.study_plots import draw_all
from analysis.study_tables import (
    LEFT,
    cost_numbers,
    cost_text,
    difference_text,
    quality_numbers,
    quality_text,
    runs_of,
    write_table,
)
from analysis.tables import text_markdown
from stages.common.outputs import staged

REPORTS = Path("reports")


@dataclass(frozen=True)
class Measured:
    """What a study measured."""

    base: Result
    rows: list[Row]  # by ratio and model
    chances: Metrics  # accuracy of guessing, by task
    profiled_tokens: int  # in the forward pass that was profiled


@dataclass(frozen=True)
class Tables:
    """A study's tables: numbers, base first, and the quality table as Markdown."""

    quality: pd.DataFrame
    costs: pd.DataFrame
    markdown: str


def write_report(name: str, missing: list[str], measured: Measured, params: ReportParams) -> Tables:
    """Write reports/<name>/ on what was measured; `missing` are the variants that are not there yet."""
    base, rows, chances = measured.base, measured.rows, measured.chances
    contrasts = compare_with_base(base, rows, params)
    quality, costs = quality_numbers(base, rows, chances), cost_numbers(base, rows)
    runs = runs_of(base, rows)
    texts = {
        "quality": quality_text(quality, measures(runs), contrasts),
        "differences": difference_text(rows, contrasts),
        "cost": cost_text(costs),
    }
    tables = {title: text_markdown(text, LEFT) for title, text in texts.items()}
    with staged(REPORTS / name) as folder:
        folder.mkdir()
        write_table(folder, "quality", quality, texts["quality"], f"Study {name}: quality")
        write_table(folder, "cost", costs, texts["cost"], f"Study {name}: cost")
        plots = draw_all(folder / "plots", base, rows, chances)
        findings = contradictions(runs, quality, costs, chances, measured.profiled_tokens)
        page = study_page(name, missing, base, rows, quality, tables, findings, plots, params)
        (folder / "study.md").write_text(page, encoding="utf-8")
    return Tables(quality, costs, tables["quality"])


def compare_with_base(base: Result, rows: list[Row], params: ReportParams) -> list[Contrast]:
    """Return every row's contrasts with the base: perplexities, then accuracies."""
    runs = runs_of(base, rows)
    pairs = [("base", row.label) for row in rows]
    perplexities = perplexity_contrasts(losses_by_text(runs, params), pairs, params.confidence)
    return perplexities + accuracy_contrasts(runs, pairs, params.level)
