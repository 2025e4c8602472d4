"""The page of a study as it is written, from cells that a formula made."""

from pathlib import Path

import pandas as pd
import pytest
import row_helpers as made

from analysis.params import ReportParams
from studies.compare import write_report

PARAMS = ReportParams(bootstrap_samples=50, seed=1, confidence=0.95)


@pytest.fixture
def page(tmp_path, monkeypatch, no_figures):
    """Return a function that writes the report of a study and returns its page."""
    monkeypatch.chdir(tmp_path)

    def write(base, cells) -> str:
        write_report(made.report(base, cells, PARAMS))
        return Path("reports/made/study.md").read_text(encoding="utf-8")

    return write


@pytest.mark.slow
def test_the_page_says_how_memory_was_told(page):
    base, cells = made.study(ratios=(0.3,), methods=("l2", "taylor"))
    assert "\n\nWeights: by arithmetic, the bytes of all parameters and buffers; the peak is that plus" in page(
        base, cells
    )
    cells[1].runs[0].profile["memory_on_cuda"] = 1
    text = page(base, cells)
    assert "Weights of base, l2 0.3, taylor, tuned 0.3: by arithmetic" in text
    assert "Weights of taylor 0.3: measured on CUDA by torch's allocator, as is the peak." in text


def test_the_quality_table_has_what_takes_no_model_as_its_last_rows(page):
    base, cells = made.study(ratios=(0.3, 0.7), methods=("random", "taylor"))
    text = page(base, cells)
    lines = [line for line in text.split("## Quality")[1].split("## ")[0].splitlines() if line.startswith("|")]
    guessing, majority = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines[-2:])
    assert guessing == ["-", "guessing", "-", "-", "50.00", "25.00", "37.50", "0.00"]
    assert majority == ["-", "majority answer", "-", "-", "65.00", "-", "-", "-"]
    assert "Majority answer: always the most frequent right answer" in text
    table = pd.read_csv("reports/made/quality.csv").set_index("method")
    assert table.loc["guessing", "average"] == 37.5 and table.loc["majority answer", "gap"] == 65
    base.questions["answer"] = None
    assert "ajority answer" not in page(base, cells)


def test_the_page_says_what_the_audit_found(page):
    base, cells = made.study(ratios=(0.3,), methods=("l2",))
    checks = lambda: page(base, cells).split("## Checks")[1].split("## Plots")[0]  # noqa: E731
    assert "None differs from its source" in checks()
    cells[0].runs[0].evaluate["gap_acc"] += 0.005
    assert "These do not agree" in checks() and "| l2 0.3 | gap" in checks()


@pytest.mark.parametrize("seeds", [(0,), (0, 1)])
def test_a_study_without_tasks(page, seeds):
    base, cells = made.study(ratios=(0.3,), methods=("l2", "taylor"), seeds=seeds)
    for run in [base, *(run for cell in cells for run in cell.runs)]:
        for task in made.CHANCES:
            del run.evaluate[f"{task}_acc"]
        run.questions.drop(run.questions.index, inplace=True)
    text = page(base, cells)
    assert "has the lowest perplexity on prose" in text
    assert "accuracy" not in text.split("## The knee")[0].lower()
    assert "nan" not in text.lower()
    assert "None differs from its source" in text
    assert not {"average", "gap", "chance_corrected"} & set(pd.read_csv("reports/made/quality.csv"))
