"""A study with a task that has no accuracy: its paired tests are in the details and on the page."""

import pandas as pd
from report_pages import read, section

from analysis.results import MODELS
from stages.report.__main__ import main


def test_a_task_without_an_accuracy_is_compared(run_folder):
    measured = {"base": [1.0] * 8, "pruned": [0.0] * 8, "tuned": [1.0] * 7 + [0.0]}
    for model in MODELS:
        values = pd.DataFrame(
            {"task": "gsm8k", "question": range(8), "metric": "exact_match", "filter": "strict-match"}
        )
        values["value"] = measured[model]
        values.to_parquet(run_folder / f"metrics/outcomes/{model}/values.parquet")
    main()
    details = read(run_folder, "metrics/details/report.json")
    name = "gsm8k_exact_match_strict_match"
    assert details[f"pruned_{name}_difference"] == -1 and details[f"pruned_{name}_p"] == 2 / 2**8
    page = section((run_folder / "reports/run.md").read_text(), "Differences")
    rows = [line.split("|") for line in page.splitlines() if name in line]
    contrasts = ["pruned against base", "tuned against base", "tuned against pruned"]
    assert [row[1].strip() for row in rows] == contrasts
    assert [row[-2].strip() for row in rows] == ["yes", "no", "yes"]
