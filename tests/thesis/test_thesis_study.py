"""The thesis's study beside the thesis's tables: what was measured, what is printed, and what has not been run."""

from dataclasses import replace

import pandas as pd
import pytest
import row_helpers as made

from analysis.arithmetic import exact_macs, parameters, shape_of
from analysis.params import ReportParams
from analysis.rows import Result, Row
from studies.compare import write_report
from thesis.arithmetic import thesis_macs
from thesis.printed import TASKS, read_tasks
from thesis.study import write_page

PARAMS = ReportParams(bootstrap_samples=50, seed=1, confidence=0.95)
CHANCES = (read_tasks()["chance"] / 100).to_dict()


def of_the_thesis(run: Result) -> Result:
    """Return the run as if it had been measured on the thesis's texts and tasks."""
    scores = {task: run.evaluate["gap_acc" if task == "boolq" else "object_acc"] for task in TASKS}
    answers = {task: "gap" if task == "boolq" else "object" for task in TASKS}
    questions = [run.questions[run.questions["task"] == made_of].assign(task=task) for task, made_of in answers.items()]
    sets = ["wikitext2", "ptb"]
    return replace(
        run,
        evaluate={f"{name}_ppl": run.evaluate["prose_ppl"] for name in sets}
        | {f"{task}_acc": score for task, score in scores.items()},
        questions=pd.concat(questions, ignore_index=True),
        windows=pd.concat([run.windows.assign(set=name) for name in sets], ignore_index=True),
    )


@pytest.fixture
def study(tmp_path, monkeypatch, no_figures) -> tuple[Result, list[Row]]:
    """Return the base, l2 and taylor at 0.3, taylor there tuned, and a ratio that the thesis has not."""
    monkeypatch.chdir(tmp_path)
    base, cells = made.study(ratios=(0.3, 0.6), methods=("l2", "taylor"))
    base = of_the_thesis(base)
    return base, [replace(cell, runs=[of_the_thesis(run) for run in cell.runs], base=base) for cell in cells]


def page_of(base: Result, cells: list[Row]) -> str:
    report = made.report(base, cells, PARAMS, "thesis", CHANCES)
    write_report(report)
    path = write_page(report)
    assert path.with_name("study.md").is_file()
    return path.read_text(encoding="utf-8")


def lines(page: str, title: str) -> dict[tuple[str, str], list[str]]:
    """Return the cells of the table in section `title`, by its first two columns."""
    found, name = {}, ""
    for line in page.split(f"## {title}")[1].split("\n## ")[0].splitlines():
        if line.startswith("|"):
            first, source, *cells = (cell.strip() for cell in line.strip("|").split("|"))
            name = first or name
            found[name, source] = cells
    return found


def test_what_was_measured_stands_beside_what_is_printed(study):
    base, cells = study
    page = page_of(base, cells)
    quality = lines(page, "Tables 2, 4, 5, 6")
    ours = {name: row for (name, source), row in quality.items() if source == "ours"}
    assert set(ours) == {"base", "l2 0.3", "taylor 0.3", "taylor 0.3 tuned"}
    tuned = next(cell for cell in cells if cell.tuned).runs[0]
    perplexity, average = f"{tuned.evaluate['ptb_ppl']:.2f}", f"{tuned.average:.2f}"
    assert ours["taylor 0.3 tuned"][:2] == [perplexity] * 2 and ours["taylor 0.3 tuned"][7:9] == [average] * 2
    assert ours["taylor 0.3 tuned"][2] == f"{100 * tuned.evaluate['boolq_acc']:.2f}"
    assert quality["taylor 0.3 tuned", "printed"][2] == "45.75"
    assert "Not measured here yet: l1 0.3, random 0.3, taylor 0.4," in page and "nan" not in page
    assert "Weights: by arithmetic" in page and "taylor 0.6" not in page


def test_costs_of_ours_are_told_by_both_conventions(study):
    base, cells = study
    page = page_of(base, cells)
    whole, shape = (shape_of(made.config(ratio)) for ratio in (0.0, 0.3))
    costs = lines(page, "Table 7")
    assert costs["0 %", "ours"][:3:2] == [f"{thesis_macs(whole):,}", f"{exact_macs(whole, 64):,}"]
    for line in ("l2", "taylor", "taylor, tuned"):
        thesis, share, exact, _, mib, _ = costs["30 %", f"ours, {line}"]
        assert (thesis, exact) == (f"{thesis_macs(shape):,}", f"{exact_macs(shape, 64):,}")
        assert share == f"{100 * thesis_macs(shape) / thesis_macs(whole):.2f}"
        assert mib == f"{4 * parameters(shape) / 2**20:.2f}"
    assert ("40 %", "printed") in costs and ("40 %", "ours, l2") not in costs
    kept = f"{100 * parameters(shape) / parameters(whole):.2f}"
    counts = [f"{parameters(each):,}" for each in (whole, shape)]
    assert lines(page, "Table 3")["30 %", "ours, l2"] == [*counts, kept]
