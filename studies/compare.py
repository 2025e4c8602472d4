"""python -m studies.compare [STUDY]: what the experiments of a study say, into reports/<study>/."""

import argparse
import sys
from pathlib import Path

from stages.common.errors import UserError
from stages.common.outputs import staged
from stages.common.params import load_section
from stages.common.stage import USER_ERROR
from stages.report.params import ReportParams
from stages.report.results import perplexity_sets
from studies.differences import accuracy_differences, perplexity_ratios
from studies.experiments import find_experiments
from studies.measured import read_study
from studies.page import knees, study_page, winners
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
    params = load_section("report", ReportParams)
    base, cells, chances = read_study(study, commits)
    cells.sort(key=lambda cell: (cell.ratio, cell.model))
    ratios, accuracies = perplexity_ratios(cells, base, params), accuracy_differences(cells, base, params)
    quality, costs = quality_numbers(base, cells, chances), cost_numbers(base, cells)
    texts = {
        "quality": quality_text(quality, ratios, accuracies),
        "differences": difference_text(cells, ratios, accuracies),
        "cost": cost_text(costs),
    }
    sets = perplexity_sets({"base": base.evaluate})
    with staged(REPORTS / study.name) as folder:
        folder.mkdir()
        write_table(folder, "quality", quality, texts["quality"], f"Study {study.name}: quality")
        write_table(folder, "cost", costs, texts["cost"], f"Study {study.name}: cost")
        page = study_page(
            study.name,
            missing=[each.label for each in study.variants if each.name not in commits],
            answers=winners(base, cells, params),
            knee_sentences={name: [text for _, text in knees(base, cells, name, params).values()] for name in sets},
            tables={name: markdown_of(text) for name, text in texts.items()},
            plots=draw_all(folder / "plots", base, cells, chances),
            params=params,
            seeds=max(len(cell.runs) for cell in cells),
            in_llama_cpp=any(cell.format.startswith("gguf") for cell in cells),
        )
        (folder / "study.md").write_text(page, encoding="utf-8")
    return markdown_of(texts["quality"])


def main() -> None:
    """Compare one study, or every study that has experiments."""
    parser = argparse.ArgumentParser(prog="python -m studies.compare", description=__doc__)
    parser.add_argument("study", type=Path, nargs="?", help="studies/<name>.yaml; default: all that have been run")
    arguments = parser.parse_args()
    commits = find_experiments()
    paths = [arguments.study] if arguments.study else sorted(Path("studies").glob("*.yaml"))
    studies = [load_study(path) for path in paths]
    started = [each for each in studies if any(variant.name in commits for variant in each.variants)]
    if not started and not arguments.study:
        raise UserError("no study has been run for this commit; `make sweep STUDY=studies/demo.yaml` runs one")
    for study in started or studies:
        print(compare(study, commits))
        print(f"\nreport: {REPORTS / study.name / 'study.md'}")


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        print(f"espalier: compare: {error}", file=sys.stderr)
        sys.exit(USER_ERROR)
