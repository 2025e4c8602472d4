"""What a page says and holds, without a browser: contrasts of any pair, texts of questions, escaped JSON."""

import json
import math

import pandas as pd
import pytest
import row_helpers as made
import yaml

from analysis.contrasts import accuracy_tests, average_contrast
from analysis.page import questions
from analysis.page.contrasts import contrasts
from analysis.page.questions import flipped
from analysis.page.study_answer import study_answer
from analysis.page.study_data import study_data
from analysis.page.write import render, script_json
from analysis.params import ReportParams
from analysis.study_tables import base_row

PARAMS = ReportParams(bootstrap_samples=100, seed=1, confidence=0.95)


@pytest.mark.parametrize("seeds", [(0,), (0, 1)])
def test_any_pair_is_tested_as_the_report_tests_it(seeds):
    base, cells = made.study(ratios=(0.3, 0.7), methods=("random", "taylor"), seeds=seeds)
    rows = [base_row(base), *cells]
    report = made.report(base, cells, PARAMS)
    found = contrasts(rows, [row.label for row in rows], report.contrasts, PARAMS)
    assert len(found) == len(rows) * (len(rows) - 1) // 2
    by_pair = {(each["reference"], each["model"]): each for each in found}
    for expected in report.contrasts:
        pair = by_pair[0, next(number for number, row in enumerate(rows) if row.label == expected.model)]
        if expected.metric == "ppl":
            value = pair["ratios"][expected.name]
            assert value == pytest.approx(
                [expected.estimate.value, expected.estimate.low, expected.estimate.high], 1e-4
            )
        else:
            test = pair["tasks"][expected.name]
            assert test["points"] == pytest.approx(100 * expected.estimate.value, abs=1e-3)
            assert (test["p_holm"] < 0.05) == expected.significant
    first, second = rows[1], rows[3]
    (test,) = (each for each in accuracy_tests(first.runs[0], second.runs[0]) if each.name == "gap")
    shown = by_pair[1, 3]["tasks"]["gap"]
    if len(seeds) == 1:
        assert (shown["lost"], shown["won"], shown["p"]) == (test.lost, test.won, pytest.approx(test.p, 1e-4))
    average = average_contrast(report.runs, first.label, second.label, 0.95).estimate.scaled(100)
    assert by_pair[1, 3]["average"] == pytest.approx([average.value, average.low, average.high], abs=1e-3)


@pytest.mark.slow
def test_fifty_variants_make_a_page_of_less_than_five_megabytes():
    base, rows = made.study(ratios=[step / 20 for step in range(1, 14)])
    page = render(study_data(made.report(base, rows, PARAMS), {}))
    assert len(rows) > 50 and all(row.label in page for row in rows) and len(page.encode()) < 5e6


def test_the_answer_names_the_best_method_its_cost_and_how_sure_it_is():
    base, cells = made.study()
    best, *_, cost = study_answer(base, cells, PARAMS)
    assert best.startswith("taylor has the lowest perplexity on prose at 2 of 3 ratios, significantly below")
    assert "above the base's, and its average accuracy changes by -" in cost
    assert study_answer(base, [], PARAMS) == []


def test_the_questions_that_flipped_have_their_texts_as_many_as_there_is_room_for(tmp_path, monkeypatch):
    documents = [{"question": f"q{i}", "options": ["no", "yes"], "label": 1} for i in range(4)]
    pd.DataFrame(documents).to_parquet(tmp_path / "t.parquet")
    task = {"dataset_kwargs": {"data_files": {"test": str(tmp_path / "t.parquet")}}, "test_split": "test"}
    right = {"base": [1, 1, 0, 1], "pruned": [0, 1, 1, 0]}
    frames = {
        model: pd.DataFrame({"task": "t", "question": range(4), "acc": pd.array(values, "Int8")})
        for model, values in right.items()
    }

    def shown(**keys) -> dict:
        (tmp_path / "t.yaml").write_text(yaml.safe_dump({**task, **keys}))
        return flipped(frames, tmp_path)["t"]

    templates = {"doc_to_text": "Q: {{question}}?", "doc_to_choice": "options", "doc_to_target": "label"}
    found = shown(**templates)
    assert [each["number"] for each in found["questions"]] == [0, 2, 3] and found["left_out"] == 0
    first = {"number": 0, "right": {"base": 1, "pruned": 0}, "prompt": "Q: q0?", "choices": ["no", "yes"], "answer": 1}
    assert found["questions"][0] == first
    # Prompts to choose between, which all end alike: doc_to_text gives the right one's number.
    several = shown(doc_to_text="label", doc_to_choice="options", doc_to_target="question")["questions"][0]
    assert (several["prompt"], several["answer"]) == ("… q0", 1)
    assert shown()["questions"][0]["prompt"] == "question: q0\noptions: no; yes\nlabel: 1"  # lm-eval's functions
    monkeypatch.setattr(questions, "BUDGET", 25)
    assert len(shown(**templates)["questions"]) == 2 and shown(**templates)["left_out"] == 1


def test_no_text_ends_the_script_that_holds_the_data():
    data = {"a": "</script><!--", "b": math.nan, "c": ["\u2028&"]}
    text = script_json(data)
    assert not set("<>&\u2028") & set(text)
    assert json.loads(text) == {"a": "</script><!--", "b": None, "c": ["\u2028&"]}
