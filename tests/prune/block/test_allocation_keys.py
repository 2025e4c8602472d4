"""The keys of the allocations that follow a formula, against the formula written out."""

import math
from dataclasses import replace

import pytest
import torch
from helpers import prune_params, tiny_llama

from stages.models.prunable import block_modules
from stages.prune.block.allocation import adaptive, allocation, influence
from stages.prune.block.costs import costs_of
from stages.prune.block.task import Task

INFLUENCE = torch.tensor([0.1, 0.5, 0.2], dtype=torch.float64)  # of the three layers


@pytest.fixture
def task(windows, monkeypatch):
    for module in (adaptive, influence):
        monkeypatch.setattr(module, "block_influence", lambda model, windows: INFLUENCE)
    model, params = tiny_llama(), prune_params(criterion="l2", attention_layers=None, mlp_layers=[0, 3])
    modules = block_modules(model, [], range(3))
    costs = costs_of(params, model, modules, model.num_parameters())
    return Task(model, windows, params, modules, modules, 0.5, costs, 0.0)


SHARES = {  # of a layer, up to a common factor
    "uniform": [1.0, 1.0, 1.0],
    "logarithmic": [1.0, 1 + math.log(2) / math.log(3), 2.0],
    "influence": [math.exp(-value / 0.2) for value in (0.1, 0.5, 0.2)],
    # The influence's distance from its mean, over the largest of them: -1/6, 7/30 and -1/15 of 7/30.
    "adaptive": [1 + 0.5 * 5 / 7, 0.5, 1 + 0.5 * 2 / 7],
}


@pytest.mark.parametrize("name", sorted(SHARES))
def test_keys_rise_with_the_share_gone_over_the_layers_share(name, task):
    keys = allocation(name).keys(task)
    for key, share in zip(keys, SHARES[name], strict=True):
        expected = [(k + 1) / 24 / share for k in range(24)]
        factor = keys[0][0].item() * 24 * SHARES[name][0]
        assert key.tolist() == pytest.approx([factor * each for each in expected])


@pytest.mark.parametrize("name", ["global", "standardised"])
def test_keys_are_scores_beside_those_of_their_module(name, task):
    for key, module in zip(allocation(name).keys(task), task.modules, strict=True):
        rows = [sum(m.weight.select(dim, k).double().square().sum() for m, dim in module.matrices) for k in range(24)]
        mean = sum(rows) / 24
        deviation = (sum((row - mean) ** 2 for row in rows) / 24) ** 0.5
        expected = [row / mean if name == "global" else (row - mean) / deviation for row in rows]
        assert key.tolist() == pytest.approx(sorted(each.item() for each in expected), rel=1e-3, abs=1e-5)


def test_random_shares_are_drawn_by_the_seed(task):
    def shares(seed: int) -> list[float]:
        drawn = replace(task, params=task.params.model_copy(update={"seed": seed}))
        keys = allocation("random").keys(drawn)
        found = [1 / 24 / key[0].item() for key in keys]
        for key, share in zip(keys, found, strict=True):
            assert key.tolist() == pytest.approx([(k + 1) / 24 / share for k in range(24)])
        return found

    assert shares(1) == shares(1) != shares(2)
    drawn = [share for seed in range(200) for share in shares(seed)]
    assert all(0.5 <= share < 1.5 for share in drawn)
    assert sum(drawn) / len(drawn) == pytest.approx(1, abs=0.05)
    assert max(drawn) - min(drawn) > 0.95
