"""python -m thesis.study: compare studies/thesis.yaml with the thesis's printed values.

reports/thesis/ is the output of `python -m studies.compare`, with thesis.md added.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from analysis.arithmetic import shape_of
from analysis.params import ReportParams
from analysis.rows import Row
from analysis.study_report import StudyReport
from analysis.study_tables import LEFT, base_row
from analysis.tables import memory_origin, text_markdown
from stages.common.outputs import staged
from stages.common.params import load_section
from stages.common.stage import run
from studies.compare import REPORTS, write_report
from studies.experiments import find_experiments
from studies.measured import read_study
from studies.study import load_study
from thesis.arithmetic import thesis_macs
from thesis.page import SETS, Ours, thesis_report
from thesis.printed import TASKS, read_quality

STUDY = Path("studies/thesis.yaml")


def main() -> None:
    """Compare the study and write the page."""
    study = load_study(STUDY)
    report = read_study(study, find_experiments(study.experiments), load_section("report", ReportParams))
    pages = write_report(report), write_page(report)
    print(f"{text_markdown(report.texts['quality'], LEFT)}\n\nreports: {', '.join(map(str, pages))}")


def write_page(report: StudyReport) -> Path:
    """Write reports/thesis/thesis.md and return its path."""
    path = REPORTS / STUDY.stem / "thesis.md"
    with staged(path) as file:
        file.write_text(thesis_report(ours(report)), encoding="utf-8")
    return path


def ours(report: StudyReport) -> Ours:
    """Return the rows of the study's tables that the thesis has too, named as there."""
    base, variants, quality, costs = report.base, report.rows, report.quality, report.costs
    rows = [base_row(base), *variants]
    names = [row_name(row) for row in rows]
    there = [name in read_quality().index for name in names]
    scores = quality.iloc[: len(rows)].set_axis(names).reindex(columns=[*SETS, *TASKS])
    tokens = report.profiled_tokens
    spent = pd.DataFrame(
        {
            "ratio": costs["ratio"],
            "source": ["ours", *(f"ours, {row.line}" for row in variants)],
            "parameters": costs["parameters"],
            "thesis_macs": [np.mean([thesis_macs(shape_of(run.config), tokens) for run in row.runs]) for row in rows],
            "exact_macs": 1e9 * costs["gmacs"],
            "weights_mib": costs["weights_mib"],
        }
    )
    origin = (
        f"*Ours* are those of [study.md](study.md), where they are checked: quality and parameters as measured, MACs\n"
        f"of {tokens} tokens, `exact` as counted on the models, `thesis` by the shapes in their config.json.\n"
        f"{memory_origin(report.runs)}"
    )
    return Ours(origin, scores[there], spent[there])


def row_name(row: Row) -> str:
    """Return what the thesis's tables call the row."""
    if not row.ratio:
        return row.line
    recovered = [row.model] if row.model != "pruned" else []
    return " ".join([row.method, str(row.ratio), *recovered])


if __name__ == "__main__":
    run("thesis.study", main)
