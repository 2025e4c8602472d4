"""python -m studies.compare [STUDY]: what the experiments of a study say, into reports/<study>/."""

import argparse
from pathlib import Path

from stages.common.errors import UserError
from stages.common.outputs import staged
from stages.common.params import load_section
from stages.common.stage import run
from stages.report.params import ReportParams
from stages.report.results import Metrics
from stages.report.thesis import thesis_report
from studies import thesis
from studies.checks import contradictions
from studies.differences import accuracy_differences, perplexity_ratios
from studies.experiments import find_experiments
from studies.measured import Cell, Measured, read_study
from studies.page import study_page
from studies.plots import draw_all
from studies.study import Study, load_study
from studies.tables import (
    cost_numbers,
    cost_text,
    difference_text,
    markdown_of,
    quality_numbers,
    quality_text,
    write_table,
)

REPORTS = Path("reports")


def compare(study: Study, commits: dict[str, str]) -> str:
    """Write reports/<study>/ and return the quality table."""
    base, cells, chances = read_study(study, commits)
    missing = [each.label for each in study.variants if each.name not in commits]
    return write_report(study.name, missing, base, cells, chances, load_section("report", ReportParams))


def write_report(
    name: str, missing: list[str], base: Measured, cells: list[Cell], chances: Metrics, params: ReportParams
) -> str:
    """Write reports/<name>/ on what was measured and return the quality table."""
    cells = sorted(cells, key=lambda cell: (cell.ratio, cell.model))
    ratios, accuracies = perplexity_ratios(cells, base, params), accuracy_differences(cells, base, params)
    quality, costs = quality_numbers(base, cells, chances), cost_numbers(base, cells)
    texts = {
        "quality": quality_text(quality, ratios, accuracies),
        "differences": difference_text(cells, ratios, accuracies),
        "cost": cost_text(costs),
    }
    tables = {title: markdown_of(text) for title, text in texts.items()}
    with staged(REPORTS / name) as folder:
        folder.mkdir()
        write_table(folder, "quality", quality, texts["quality"], f"Study {name}: quality")
        write_table(folder, "cost", costs, texts["cost"], f"Study {name}: cost")
        plots = draw_all(folder / "plots", base, cells, chances)
        findings = contradictions(base, cells, chances, quality, costs)
        page = study_page(name, missing, base, cells, tables, findings, plots, params)
        (folder / "study.md").write_text(page, encoding="utf-8")
        if name == thesis.NAME:
            beside = thesis_report(thesis.measured(base, cells, quality, costs))
            (folder / "thesis.md").write_text(beside, encoding="utf-8")
    return tables["quality"]


def main() -> None:
    """Compare one study, or every study that has experiments."""
    parser = argparse.ArgumentParser(prog="python -m studies.compare", description=__doc__)
    parser.add_argument("study", type=Path, nargs="?", help="studies/<name>.yaml; default: all that have been run")
    arguments = parser.parse_args()
    paths = [arguments.study] if arguments.study else sorted(Path("studies").glob("*.yaml"))
    studies = [load_study(path) for path in paths]
    commits = find_experiments(each for study in studies for each in study.experiments)
    started = [each for each in studies if any(variant.name in commits for variant in each.variants)]
    if not started and not arguments.study:
        raise UserError("no study has been run for this commit; `make sweep STUDY=studies/demo.yaml` runs one")
    for study in started or studies:
        print(compare(study, commits))
        print(f"\nreport: {REPORTS / study.name / 'study.md'}")


if __name__ == "__main__":
    run("compare", main)
