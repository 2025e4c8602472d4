"""Calibration that says next to nothing: every block criterion, update and allocation still gives a finite model."""

import pytest
import torch
from helpers import prune_params, tiny_llama

from stages.models.prunable import block_modules
from stages.prune.block import BLOCK
from stages.prune.block.allocation import search
from stages.prune.block.pruning import prune

CASES = ["one token", "constant", "dead"]


def degenerate(case):
    """Return a model and windows that hold one predicted token, one token over and over, or meet dead units too."""
    model = tiny_llama()
    windows = torch.zeros(1, 2, dtype=torch.int64) if case == "one token" else torch.full((4, 16), 5)
    if case == "dead":
        with torch.no_grad():
            model.model.layers[1].mlp.up_proj.weight.zero_()
            model.model.layers[2].self_attn.v_proj.weight.zero_()
    return model, windows


def check_finite(model):
    with torch.no_grad():
        assert all(torch.isfinite(each).all() for each in [*model.parameters(), model(torch.arange(16)[None]).logits])


@pytest.mark.parametrize("criterion", BLOCK.takes["criterion"])
@pytest.mark.parametrize("name", BLOCK.takes["update"])
@pytest.mark.parametrize("case", CASES)
@pytest.mark.slow
def test_every_criterion_with_every_update(criterion, name, case):
    model, windows = degenerate(case)
    pruned, _ = prune(model, windows, prune_params(criterion=criterion, update=name))
    check_finite(pruned)


@pytest.mark.parametrize("name", BLOCK.takes["allocation"])
@pytest.mark.parametrize("case", CASES)
@pytest.mark.slow
def test_every_allocation_meets_the_ratio(name, case, monkeypatch):
    monkeypatch.setattr(search, "TRIALS", 3)
    model, windows = degenerate(case)
    largest = max(module.cost for module in block_modules(model, range(3), range(3)))
    layers = {"attention_layers": [0, 3], "mlp_layers": [0, 3]}
    params = prune_params(
        criterion="obs", allocation=name, update="realign", ratio=0.3, ratio_of="parameters", **layers
    )
    pruned, metrics = prune(model, windows, params)
    check_finite(pruned)
    gone = metrics["parameters_before"] - metrics["parameters"]
    assert abs(gone - 0.3 * metrics["parameters_before"]) < largest
