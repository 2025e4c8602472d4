"""Paired tests on values of questions that are no accuracy."""

import math

import numpy as np
import pandas as pd
import pytest
from row_helpers import NO_QUESTIONS, answered
from scipy.stats import binomtest

from analysis.comparison import compare
from analysis.params import ReportParams
from stages.common.errors import UserError

PARAMS = ReportParams(bootstrap_samples=10, seed=1, confidence=0.95)


def compare_values(values: dict[str, pd.DataFrame], questions: dict[str, pd.DataFrame]) -> dict[str, float]:
    """Return what is written of models of which values were measured, and of some `questions`."""
    runs = {model: answered(model, questions.get(model, NO_QUESTIONS), values=each) for model, each in values.items()}
    return compare(runs, {}, None, PARAMS).metrics()


def values(**measured: list[float]) -> pd.DataFrame:
    """Return values.parquet of metrics of one task, each of a filter."""
    rows = [
        {"task": "gsm8k", "question": number, "metric": "exact_match", "filter": kind.replace("_", "-"), "value": value}
        for kind, each in measured.items()
        for number, value in enumerate(each)
    ]
    return pd.DataFrame(rows)


def test_right_or_wrong_is_tested_as_an_accuracy_is():
    base, pruned = values(strict_match=[1, 1, 1, 0, 1]), values(strict_match=[0, 0, 1, 1, 0])
    found = compare_values({"base": base, "pruned": pruned.sample(frac=1, random_state=0)}, {})
    name = "pruned_gsm8k_exact_match_strict_match"
    assert found == {
        f"{name}_difference": pytest.approx(-0.4),
        f"{name}_p": pytest.approx(binomtest(1, 4, 0.5).pvalue),
        f"{name}_p_holm": pytest.approx(binomtest(1, 4, 0.5).pvalue),
    }


def test_other_values_are_tested_by_the_paired_t_test():
    one, other = np.array([0.1, 0.5, 0.9, 0.3]), np.array([0.2, 0.4, 0.5, 0.1])
    found = compare_values({"base": values(none=list(one)), "pruned": values(none=list(other))}, {})
    difference = other - one
    t = difference.mean() / (difference.std(ddof=1) / math.sqrt(4))
    # The two-sided p of Student's t with three degrees of freedom, in closed form.
    angle = math.atan(abs(t) / math.sqrt(3))
    p = 1 - 2 / math.pi * (angle + math.sin(angle) * math.cos(angle))
    assert found["pruned_gsm8k_exact_match_difference"] == pytest.approx(difference.mean())
    assert found["pruned_gsm8k_exact_match_p"] == pytest.approx(p)


def test_tasks_with_an_accuracy_are_left_out_and_equal_values_are_no_difference():
    same = {"base": values(none=[0.5, 0.25]), "pruned": values(none=[0.5, 0.25])}
    assert compare_values(same, {"base": pd.DataFrame({"task": ["gsm8k"]})}) == {}
    assert compare_values(same, {})["pruned_gsm8k_exact_match_p"] == 1
    assert compare_values({}, {}) == {}


def test_a_difference_without_spread_is_tested_by_its_sign():
    found = compare_values({"base": values(none=[0.5] * 9), "pruned": values(none=[0.25] * 9)}, {})
    assert found["pruned_gsm8k_exact_match_p"] == pytest.approx(binomtest(0, 9, 0.5).pvalue)


def test_other_questions_are_refused():
    with pytest.raises(UserError, match="were not measured on the same questions"):
        compare_values({"base": values(none=[1, 0]), "pruned": values(none=[1])}, {})
