"""metrics/details/report.json: averages, paired tests and ratios from the models' outcomes."""

from math import exp

import pandas as pd
import pytest
from row_helpers import answered

from analysis.comparison import average_accuracies, compare
from analysis.params import ReportParams
from stages.common.errors import UserError

PARAMS = ReportParams(bootstrap_samples=200, seed=1, confidence=0.95)


def questions(**answers: list[int]) -> pd.DataFrame:
    """Return outcomes by task as evaluate writes them."""
    rows = [
        {"task": task, "question": index, "acc": right}
        for task, rights in answers.items()
        for index, right in enumerate(rights)
    ]
    return pd.DataFrame(rows).astype({"acc": "Int8"})


def windows(losses: list[float], tokens: int = 127) -> pd.DataFrame:
    return pd.DataFrame({"set": "text", "window": range(len(losses)), "loss": losses, "tokens": tokens})


def test_averages_are_the_row_s():
    evaluate = {"base": {"a_acc": 0.5, "b_acc": 0.8, "a_acc_norm": 0.1, "a_acc_stderr": 0.2}}
    averages = average_accuracies(evaluate, {"a": 0.25, "b": 0.5})
    assert averages["base_average_acc"] == pytest.approx((0.5 + 0.8) / 2)
    assert averages["base_average_acc_chance_corrected"] == pytest.approx((0.25 / 0.75 + 0.3 / 0.5) / 2)


def test_an_average_with_a_missing_part_is_absent():
    evaluate = {"base": {"a_acc": 0.5, "b_acc": 0.8}, "pruned": {"a_acc": 0.5}}
    assert set(average_accuracies(evaluate, {"a": 0.25})) == {"base_average_acc"}
    assert average_accuracies({"base": {}}, {}) == {}


def metrics_of(chances=None, own_domain=None, **models) -> dict[str, float]:
    """Return what is written of models of which only outcomes were measured."""
    runs = {model: answered(model, **frames) for model, frames in models.items()}
    return compare(runs, chances or {}, own_domain, PARAMS).metrics()


def test_accuracies_are_compared_on_the_same_questions():
    base, pruned = questions(a=[1, 1, 1, 0], b=[0, 0]), questions(a=[0, 0, 1, 1], b=[0, 1])
    found = metrics_of(base={"questions": base}, pruned={"questions": pruned.sample(frac=1, random_state=0)})
    assert found["pruned_a_acc_difference"] == pytest.approx(-0.25)
    assert (found["pruned_a_lost"], found["pruned_a_won"]) == (2, 1)
    assert found["pruned_b_acc_difference"] == pytest.approx(0.5)
    assert found["pruned_a_mcnemar_p"] == 1.0
    assert not [name for name in found if name.startswith("tuned")]


def test_all_contrasts_and_tasks_are_one_family():
    base, pruned = questions(a=[1] * 20, b=[1] * 20), questions(a=[0] * 10 + [1] * 10, b=[0] * 8 + [1] * 12)
    found = metrics_of(base={"questions": base}, pruned={"questions": pruned}, tuned={"questions": pruned})
    smallest = found["pruned_a_mcnemar_p"]
    assert smallest == pytest.approx(2 / 2**10)
    assert found["pruned_a_mcnemar_p_holm"] == pytest.approx(6 * smallest)
    assert found["tuned_vs_pruned_a_mcnemar_p_holm"] == 1.0


@pytest.mark.parametrize("other", [questions(a=[1, 0, 1]), questions(b=[1, 0])])
def test_different_questions_are_not_paired(other):
    with pytest.raises(UserError, match="base and pruned were not measured on the same questions"):
        metrics_of(base={"questions": questions(a=[1, 0])}, pruned={"questions": other})


def test_chance_is_tested_where_it_is_known():
    found = metrics_of({"a": 0.5}, base={"questions": questions(a=[1, 1, 1, 0], b=[1])})
    assert found == {"base_a_chance_p": pytest.approx(5 / 16)}


def test_ratios_and_recovery_are_of_mean_losses():
    frames = {"base": [1.0, 2.0], "pruned": [2.0, 3.5], "tuned": [1.5, 2.5]}
    found = metrics_of(**{model: {"windows": windows(losses)} for model, losses in frames.items()})
    assert found["pruned_text_ppl_ratio"] == pytest.approx(exp(1.25))
    assert found["tuned_text_ppl_ratio"] == pytest.approx(exp(0.5))
    assert found["tuned_vs_pruned_text_ppl_ratio"] == pytest.approx(exp(-0.75))
    assert found["tuned_text_log_ppl_recovered"] == pytest.approx(0.75 / 1.25)
    assert found["pruned_text_ppl_ratio_low"] == pytest.approx(exp(1.0))
    assert found["pruned_text_ppl_ratio_high"] == pytest.approx(exp(1.5))
    assert found["tuned_text_log_ppl_recovered_low"] == pytest.approx(0.5)
    assert found["tuned_text_log_ppl_recovered_high"] == pytest.approx(1.0 / 1.5)


def test_nothing_lost_is_nothing_to_recover():
    frames = {"base": [1.0, 2.0], "pruned": [1.0, 2.0], "tuned": [0.5, 1.5]}
    found = metrics_of(**{model: {"windows": windows(losses)} for model, losses in frames.items()})
    assert found and not [name for name in found if "recovered" in name]


def test_one_window_has_no_interval():
    found = metrics_of(base={"windows": windows([1.0])}, pruned={"windows": windows([2.0])})
    assert found == {"pruned_text_ppl_ratio": pytest.approx(exp(1.0))}
