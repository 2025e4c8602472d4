"""python -m studies.page STUDY: write reports/<study>/index.html alone, on the variants that are there so far.

A sweep starts it after every variant, and hands it what is running and what failed as JSON on stdin.
"""

import json
import sys
from pathlib import Path

from analysis.page.study_data import study_data
from analysis.page.write import write_page
from analysis.params import ReportParams
from stages.common.params import load_section
from stages.common.stage import run
from studies.compare import REPORTS
from studies.experiments import find_experiments
from studies.measured import read_study
from studies.origins import origins_of
from studies.study import load_study


def main() -> None:
    """Write the page of one study."""
    study, status = load_study(Path(sys.argv[1])), json.load(sys.stdin)
    commits = find_experiments(study.experiments)
    report = read_study(study, commits, load_section("report", ReportParams))
    data = study_data(report, origins_of(study, commits), status["running"], status["failed"])
    write_page(REPORTS / study.name / "index.html", data)


if __name__ == "__main__":
    run("page", main)
