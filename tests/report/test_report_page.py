"""What reports/study.md says beside its numbers: baselines, how memory was told, what contradicts itself."""

import pandas as pd
import pytest
from report_pages import edit, read, section, table_rows

from analysis.results import MODELS
from stages.report.__main__ import main


def test_the_cost_says_how_memory_was_told(study_folder):
    def cost() -> str:
        main()
        return section((study_folder / "reports/study.md").read_text(), "Cost")

    assert "\n\nWeights: by arithmetic, the bytes of all parameters and buffers; the peak adds" in cost()
    for model in MODELS:
        edit(study_folder / f"metrics/details/profile/{model}.json", memory_on_cuda=1)
    assert "\n\nWeights: measured on CUDA by torch's allocator, as is the peak." in cost()


def test_the_quality_says_in_what_it_was_computed(study_folder):
    main()
    page = (study_folder / "reports/study.md").read_text()
    assert "higher is better. Matrix products in bfloat16. The averages" in section(page, "Quality")


def test_where_every_question_has_its_own_choices_there_is_no_majority_answer(study_folder):
    for path in study_folder.glob("metrics/outcomes/*/questions.parquet"):
        pd.read_parquet(path).assign(answer=None).to_parquet(path)
    main()
    page = (study_folder / "reports/study.md").read_text()
    assert "ajority answer" not in page and "guessing" in page


@pytest.mark.parametrize(
    ("kind", "key", "by", "expected"),
    [
        ("evaluate", "gap_acc", 0.01, {("pruned", "gap")}),
        ("details/evaluate", "continuation_acc_norm", 0.01, {("pruned", "continuation")}),
        ("profile", "weights_mib", 0.1, {("pruned", "weights_mib")}),
    ],
)
def test_a_metric_that_its_source_contradicts_is_flagged(study_folder, kind, key, by, expected):
    before = read(study_folder, f"metrics/{kind}/pruned.json")[key]
    edit(study_folder / f"metrics/{kind}/pruned.json", **{key: before + by})
    main()
    rows = table_rows(section((study_folder / "reports/study.md").read_text(), "Checks"))[2:]
    assert {(row[0], row[1]) for row in rows} == expected
    scale = 100 if "evaluate" in kind else 1
    assert rows[0][2:4] == [f"{scale * (before + by):.2f}", f"{scale * before:.2f}"]
    assert read(study_folder, "metrics/details/report.json")["table_contradictions"] == 1
