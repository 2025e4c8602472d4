"""python -m studies.compare [STUDY]: what the experiments of a study say, into reports/<study>/."""

import argparse
from pathlib import Path

from analysis.params import ReportParams
from analysis.study_report import REPORTS, Measured, Tables, write_report
from stages.common.errors import UserError
from stages.common.params import load_section
from stages.common.stage import run
from studies.experiments import find_experiments
from studies.measured import read_study
from studies.study import Study, load_study


def compare(study: Study, commits: dict[str, str]) -> tuple[Measured, Tables]:
    """Write reports/<study>/ and return what it is made from; `commits` are the experiments' by name."""
    measured = read_study(study, commits)
    missing = [each.label for each in study.variants if each.name not in commits]
    return measured, write_report(study.name, missing, measured, load_section("report", ReportParams))


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
        _, tables = compare(study, commits)
        print(f"{tables.markdown}\n\nreport: {REPORTS / study.name / 'study.md'}")


if __name__ == "__main__":
    run("compare", main)
