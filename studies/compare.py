"""python -m studies.compare [STUDY]: compare the experiments of a study in reports/<study>/."""

import argparse
from pathlib import Path

from analysis.page.study_data import Origin, study_data
from analysis.page.write import write_page
from analysis.params import ReportParams
from analysis.study_page import study_page
from analysis.study_plots import draw_all
from analysis.study_report import StudyReport
from analysis.study_tables import LEFT, write_table
from analysis.tables import text_markdown
from stages.common.errors import UserError
from stages.common.outputs import staged
from stages.common.params import load_section
from stages.common.stage import run
from studies.experiments import find_experiments
from studies.measured import read_study
from studies.origins import origins_of
from studies.study import load_study

REPORTS = Path("reports")


def write_report(report: StudyReport, origins: dict[str, Origin] | None = None) -> Path:
    """Write reports/<study>/: tables, figures and both pages; return the path of the Markdown page.

    `origins` say where the experiments come from, by name.
    """
    with staged(REPORTS / report.name) as folder:
        folder.mkdir()
        for title, numbers in (("quality", report.quality), ("cost", report.costs)):
            write_table(folder, title, numbers, report.texts[title], f"Study {report.name}: {title}")
        plots = draw_all(folder / "plots", report.base, report.rows, report.chances)
        (folder / "study.md").write_text(study_page(report, plots), encoding="utf-8")
        write_page(folder / "index.html", study_data(report, origins or {}))
    return REPORTS / report.name / "study.md"


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
        report = read_study(study, commits, load_section("report", ReportParams))
        page = write_report(report, origins_of(study, commits))
        table = text_markdown(report.texts["quality"], LEFT)
        print(f"{table}\n\nreport: {page}\npage: {page.with_name('index.html')}")


if __name__ == "__main__":
    run("compare", main)
