"""What reports/run.md says besides its numbers: baselines, how memory was measured, what contradicts itself."""

import pandas as pd
import pytest
from report_pages import edit, read, section, table_rows

from analysis.results import MODELS
from stages.report.__main__ import main


def test_the_cost_says_how_memory_was_told(run_folder):
    def cost() -> str:
        main()
        return section((run_folder / "reports/run.md").read_text(), "Cost")

    assert "\n\nWeights: by arithmetic, the bytes of all parameters and buffers; the peak is that plus" in cost()
    for model in MODELS:
        edit(run_folder / f"metrics/details/profile/{model}.json", memory_on_cuda=1)
    assert "\n\nWeights: measured on CUDA by torch's allocator, as is the peak." in cost()


def test_the_quality_says_in_what_it_was_computed(run_folder):
    main()
    page = (run_folder / "reports/run.md").read_text()
    assert "higher is better. Matrix products in bfloat16. The averages" in section(page, "Quality")


def test_where_every_question_has_its_own_choices_there_is_no_majority_answer(run_folder):
    for path in run_folder.glob("metrics/outcomes/*/questions.parquet"):
        pd.read_parquet(path).assign(answer=None).to_parquet(path)
    main()
    page = (run_folder / "reports/run.md").read_text()
    assert "ajority answer" not in page and "guessing" in page


@pytest.mark.parametrize(
    ("kind", "key", "by", "expected"),
    [
        ("evaluate", "gap_acc", 0.01, {("pruned", "gap")}),
        ("details/evaluate", "continuation_acc_norm", 0.01, {("pruned", "continuation")}),
        ("profile", "weights_mib", 0.1, {("pruned", "weights_mib")}),
    ],
)
def test_a_metric_that_its_source_contradicts_is_flagged(run_folder, kind, key, by, expected):
    before = read(run_folder, f"metrics/{kind}/pruned.json")[key]
    edit(run_folder / f"metrics/{kind}/pruned.json", **{key: before + by})
    main()
    rows = table_rows(section((run_folder / "reports/run.md").read_text(), "Checks"))[2:]
    assert {(row[0], row[1]) for row in rows} == expected
    scale = 100 if "evaluate" in kind else 1
    assert rows[0][2:4] == [f"{scale * (before + by):.2f}", f"{scale * before:.2f}"]
    assert read(run_folder, "metrics/details/report.json")["table_contradictions"] == 1
