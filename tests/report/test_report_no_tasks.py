"""A study without evaluation tasks: perplexities, costs and no accuracy."""

import json
from pathlib import Path

import pandas as pd
from report_pages import read, section

from analysis.results import MODELS, read_by_model
from stages.report.__main__ import main
from stages.report.show import compare


def test_a_study_without_tasks_is_reported(run_folder):
    for file in (run_folder / "data/tasks").iterdir():
        file.unlink()
    for model in MODELS:
        for folder in ("evaluate", "details/evaluate"):
            file = run_folder / f"metrics/{folder}/{model}.json"
            kept = {key: value for key, value in json.loads(file.read_text()).items() if "_acc" not in key}
            file.write_text(json.dumps(kept))
        questions = run_folder / f"metrics/outcomes/{model}/questions.parquet"
        pd.read_parquet(questions)[:0].to_parquet(questions)
    main()
    page = (run_folder / "reports/run.md").read_text()
    for model in MODELS:
        perplexity = read(run_folder, f"metrics/evaluate/{model}.json")["pydocs_ppl"]
        assert f"{perplexity:.2f}" in section(page, "Quality")
    assert "nan" not in page.lower().replace("finance", "")
    assert not [key for key in read(run_folder, "metrics/details/report.json") if "acc" in key]
    assert "None differs from its source" in section(page, "Checks")
    shown = compare(*(read_by_model(Path("metrics"), stage) for stage in ("evaluate", "profile")))
    assert "perplexity" in shown and "accuracy" not in shown and "nan" not in shown
