"""The tests of significance against sums written out, known cases and simulation."""

from math import comb, exp

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis import significance
from analysis.estimates import interval
from analysis.significance import above_chance, bootstrap_losses, holm, mcnemar, mean_loss

COUNTS = st.integers(0, 40)


def answers(both: int, lost: int, won: int, neither: int) -> tuple[np.ndarray, np.ndarray]:
    pairs = [(1, 1)] * both + [(1, 0)] * lost + [(0, 1)] * won + [(0, 0)] * neither
    reference, model = np.array(pairs, dtype=int).reshape(-1, 2).T
    return reference, model


@given(COUNTS, COUNTS, COUNTS, COUNTS)
def test_mcnemar_equals_the_binomial_sum(both, lost, won, neither):
    test = mcnemar(*answers(both, lost, won, neither))
    differing = lost + won
    tail = sum(comb(differing, k) for k in range(min(lost, won) + 1)) / 2**differing
    assert (test.lost, test.won) == (lost, won)
    assert test.p == pytest.approx(min(1.0, 2 * tail), rel=1e-9)


def test_mcnemar_of_a_published_table():
    # 0 against 6 discordant pairs: 2 * (1/2)^6.
    assert mcnemar(*answers(10, 0, 6, 3)).p == pytest.approx(0.03125)


@given(st.integers(1, 60), st.data(), st.sampled_from([0.25, 0.5, 0.31]))
def test_above_chance_equals_the_binomial_sum(questions, data, chance):
    correct = data.draw(st.integers(0, questions))
    tail = sum(comb(questions, k) * chance**k * (1 - chance) ** (questions - k) for k in range(correct, questions + 1))
    assert above_chance(correct, questions, chance) == pytest.approx(tail, rel=1e-9)


def test_holm_of_a_worked_example():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_rejects_what_stepping_down_rejects(p_values):
    level = 0.05
    rejected = set()
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        if p_values[index] * (len(p_values) - rank) > level:
            break
        rejected.add(index)
    assert {index for index, adjusted in enumerate(holm(p_values)) if adjusted <= level} == rejected


def test_mean_loss_weighs_windows_by_tokens():
    losses = np.array([[1.0, 2.0], [3.0, 4.0]])
    assert mean_loss(losses, np.array([30.0, 10.0])) == pytest.approx([1.5, 2.5])


def test_bootstrap_equals_a_loop_over_the_same_draws():
    random = np.random.default_rng(0)
    losses, tokens = random.normal(3, 1, (7, 2)), random.integers(5, 50, 7).astype(float)
    draws = np.random.default_rng(11).integers(7, size=(20, 7))
    expected = [
        [sum(tokens[w] * losses[w, m] for w in draw) / sum(tokens[w] for w in draw) for m in range(2)] for draw in draws
    ]
    assert bootstrap_losses(losses, tokens, 20, seed=11) == pytest.approx(np.array(expected))


def test_bootstrap_does_not_depend_on_its_batches(monkeypatch):
    losses, tokens = np.random.default_rng(1).normal(3, 1, (9, 3)), np.full(9, 127.0)
    whole = bootstrap_losses(losses, tokens, 101, seed=3)
    monkeypatch.setattr(significance, "RESAMPLED_WINDOWS_AT_ONCE", 40)
    assert np.array_equal(whole, bootstrap_losses(losses, tokens, 101, seed=3))


def test_pairing_cancels_how_hard_the_windows_are():
    """A model that is worse by the same in every window has a ratio without any spread."""
    hard = np.random.default_rng(2).normal(3, 1, 50)
    drawn = bootstrap_losses(np.stack([hard, hard + 0.25], axis=1), np.full(50, 127.0), 200, seed=0)
    assert interval(np.exp(drawn[:, 1] - drawn[:, 0]), 0.95) == pytest.approx((exp(0.25), exp(0.25)))
    assert np.ptp(drawn[:, 0]) > 0.1


def test_interval_holds_the_middle():
    assert interval(np.arange(101.0), 0.9) == pytest.approx((5.0, 95.0))


def test_interval_covers_the_truth_as_often_as_it_says():
    random, covered, runs = np.random.default_rng(5), 0, 400
    for run in range(runs):
        losses = random.normal(3, 0.5, (60, 1)) + np.array([0.0, 0.1]) + random.normal(0, 0.1, (60, 2))
        drawn = bootstrap_losses(losses, np.ones(60), 400, seed=run)
        low, high = interval(drawn[:, 1] - drawn[:, 0], 0.9)
        covered += low <= 0.1 <= high
    assert 0.85 <= covered / runs <= 0.94
