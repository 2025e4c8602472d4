"""The peers' tables: intervals over windows against scipy's paired t-test, and which runs are compared."""

import sys

import numpy as np
from helpers import ROOT
from scipy.stats import ttest_rel

sys.path.insert(0, str(ROOT / "benchmarks"))
import peers


def test_the_interval_is_that_of_a_paired_t_test():
    random = np.random.default_rng(0)
    theirs = random.normal(3, 1, 16)
    for shift, verdict in ((-0.1, "met"), (0.01, "met"), (0.2, "missed")):
        noise = random.normal(0, 0.1, 16)
        ours = theirs + noise - noise.mean() + shift
        interval = ttest_rel(ours, theirs).confidence_interval(0.95)
        middle, reach = (interval.high + interval.low) / 2, (interval.high - interval.low) / 2
        assert peers.difference(list(ours), list(theirs)) == f"{middle:+.4f} ± {reach:.4f}, {verdict}"


def row(loss, seconds=1):
    losses = {text: [loss, loss + 1] for text in peers.TEXTS}
    return {"losses": losses, "cpu_seconds": seconds, "peak_mib": 9, "parameters_before": 4, "parameters_nonzero": 2}


def test_runs_are_paired_by_method_and_pattern():
    found = {"ours wanda row 42": row(1, 5), "wanda wanda row 42": row(1.5, 10), "ours wanda 2:4 42": row(2, 3)}
    pairs = peers.pairs_table(found).splitlines()[2:]
    assert [[cell.strip() for cell in line.split("|")[1:-1]] for line in pairs] == [
        ["wanda", "row", "42", "-0.5000 ± 0.0000, met", "-0.5000 ± 0.0000, met", "0.50"]
    ]
    assert len(peers.results_table(found).splitlines()) == 2 + len(found)
    assert {run.name for run in peers.RUNS} >= set(found)


def test_allocations_are_compared_over_the_draws_that_both_have():
    found = {"base none 1.0000 42": row(3)}
    assert len(peers.allocation_table(found).splitlines()) == 2
    found |= {"ours best 0.7000 42": row(3.2), "ours best 0.7000 44": row(9)}  # draw 44 has no partner
    found |= {
        "ours best 0.7000 43": row(3.4),
        "ours obs_realign 0.7000 42": row(3.3),
        "ours obs_realign 0.7000 43": row(3.5),
    }
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in peers.allocation_table(found).splitlines()[2:]]
    assert rows == [["0.7", text, "2", "0.300", "0.400", "0.75"] for text in peers.TEXTS]
    assert {run.name for run in peers.RUNS} >= set(found)
