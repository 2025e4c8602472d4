"""Allocations: budgets are met, the knapsack is exact, measuring leaves no trace."""

import itertools

import pytest
import torch
from helpers import prune_params, tiny_llama
from hypothesis import given, settings
from hypothesis import strategies as st
from task_helpers import params_of_all, task_by

from stages.models.checkpoint import load_model
from stages.models.parts import Parts
from stages.models.prunable import block_modules
from stages.prune.block import BLOCK, REMOVE_WHOLE
from stages.prune.block.allocation import search, sensitivity
from stages.prune.block.divergence import Dense
from stages.prune.block.pruning import prune
from stages.prune.block.update import update as named_update
from stages.prune.block.update.realign import Realign
from stages.prune.methods import METHODS
from stages.prune.units import share_of_units

EVERYWHERE = {"attention_layers": [0, 3], "mlp_layers": [0, 3]}
# These remove whole modules, in one step and only of one budget: test_two_stage.py and test_sublayers.py.
ALLOCATIONS = [name for name in BLOCK.takes["allocation"] if name not in REMOVE_WHOLE]
BLOCK_METHODS = sorted(
    name for name, method in METHODS.items() if method.structure == "block" and method.allocation in ALLOCATIONS
)


@pytest.fixture(autouse=True)
def short_search(monkeypatch):
    monkeypatch.setattr(search, "TRIALS", 3)
    monkeypatch.setattr(sensitivity, "LEVELS", 4)


def task_of(model, windows, **changes):
    return task_by(params_of_all(3, **changes), model, windows)


@pytest.mark.parametrize("name", ALLOCATIONS)
@pytest.mark.parametrize("ratio", [0.05, 0.31])
@pytest.mark.parametrize("steps", [1, 2])
@pytest.mark.slow
def test_every_allocation_meets_the_parameters_to_within_one_unit(name, ratio, steps, windows):
    model = tiny_llama(heads=8, kv_heads=4)
    largest = max(module.cost for module in block_modules(model, range(3), range(3)))
    params = prune_params(
        criterion="flap", allocation=name, update="refit", ratio=ratio, ratio_of="parameters", iterative_steps=steps,
        **EVERYWHERE,
    )  # fmt: skip
    _, metrics = prune(model, windows, params)
    target = ratio * metrics["parameters_before"]
    assert abs(metrics["parameters_before"] - metrics["parameters"] - target) < largest


def test_attention_gives_half_the_share_that_mlps_give(windows):
    model = tiny_llama(heads=8, kv_heads=8, layers=3)
    params = prune_params(
        method="l2", allocation="channels_first", ratio=0.35, ratio_of="parameters", **EVERYWHERE
    )  # fmt: skip
    pruned, _ = prune(model, windows, params)
    for layer in pruned.model.layers:
        gone = 1 - layer.mlp.gate_proj.out_features / tiny_llama().config.intermediate_size
        heads = layer.self_attn.k_proj.out_features // layer.self_attn.head_dim
        assert (8 - heads) / 8 == pytest.approx(gone / 2, abs=1 / 8)
        assert heads < 8


def test_biases_that_an_update_adds_are_removed_too(windows):
    model = tiny_llama()
    channel = max(module.cost for module in block_modules(model, [], range(3))) + 2  # and two biases
    params = prune_params(method="flap", ratio=0.2, ratio_of="parameters", attention_layers=None, mlp_layers=[0, 3])
    pruned, metrics = prune(model, windows, params)
    target = 0.2 * metrics["parameters_before"]
    assert abs(metrics["parameters_before"] - pruned.num_parameters() - target) < channel


@pytest.mark.parametrize("name", ALLOCATIONS)
def test_every_allocation_removes_llm_pruners_share_of_units(name, windows):
    model = tiny_llama(heads=8, kv_heads=4)
    modules = block_modules(model, range(3), range(3))
    expected = share_of_units([module for module in modules if module.kind == "mlp"], 0.4)
    if name in ("channels_first", "uniform"):  # each module for itself
        expected = sum(share_of_units([module], 0.4) for module in modules if module.kind == "mlp")
    pruned, _ = prune(model, windows, prune_params(method="l2", allocation=name, ratio=0.4, **EVERYWHERE))
    assert 3 * 24 - sum(each["intermediate_size"] for each in Parts(pruned).widths) == expected


@pytest.mark.parametrize("method", BLOCK_METHODS)
def test_ratio_zero_is_the_identity_for_every_method(method, windows):
    model = tiny_llama()
    expected = {key: value.clone() for key, value in model.state_dict().items()}
    pruned, metrics = prune(model, windows, prune_params(method=method, ratio=0))
    assert metrics["ratio_actual"] == 0
    assert pruned.state_dict().keys() == expected.keys()
    assert all(torch.equal(value, expected[key]) for key, value in pruned.state_dict().items())


@pytest.mark.parametrize("method", BLOCK_METHODS)
@pytest.mark.slow
def test_every_method_gives_a_checkpoint_that_loads(method, windows, tmp_path):
    pruned, _ = prune(tiny_llama(), windows, prune_params(method=method))
    pruned.save_pretrained(tmp_path)
    loaded = load_model(tmp_path)
    with torch.no_grad():
        assert torch.equal(loaded(windows).logits, pruned(windows).logits)


@settings(max_examples=60, deadline=None)
@given(
    tables=st.lists(st.lists(st.floats(0, 1), min_size=1, max_size=4), min_size=1, max_size=4),
    costs=st.lists(st.integers(1, 5), min_size=4, max_size=4),
    budget=st.integers(0, 40),
)
def test_the_knapsack_is_as_good_as_trying_everything(tables, costs, budget):
    losses = [{0: 0.0, **{2 * i + 1: loss for i, loss in enumerate(table)}} for table in tables]
    priced = [{count: count * cost for count in table} for table, cost in zip(losses, costs, strict=False)]
    got = sensitivity.knapsack(losses, priced, budget)

    def value(counts):
        reached = sum(count * cost for count, cost in zip(counts, costs, strict=False))
        return (-min(reached, budget), sum(table[count] for table, count in zip(losses, counts, strict=True)))

    best = min(value(counts) for counts in itertools.product(*losses))
    assert value(got)[0] == best[0]
    assert value(got)[1] == pytest.approx(best[1])


@pytest.mark.parametrize("update", ["none", "bias", "refit", "realign"])
def test_measuring_leaves_the_model_as_it_was_and_is_what_pruning_alone_gives(update, windows, monkeypatch):
    monkeypatch.setattr(Realign, "finish", lambda self, activations: None)  # the last norm is no module's
    model = tiny_llama()
    named_update(update).prepare(model)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    losses = sensitivity.Sensitivity().losses(task_of(model, windows, criterion="wanda_sp", update=update))
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    dense = Dense(model, windows)
    alone = prune_params(criterion="wanda_sp", update=update, ratio=0.5, attention_layers=None, mlp_layers=[1, 2])
    pruned, _ = prune(tiny_llama(), windows, alone)
    assert losses[3][12] == pytest.approx(dense.of_model(pruned), rel=1e-2)


def test_divergence_is_the_kl_of_the_distributions(windows):
    model, other = tiny_llama(), tiny_llama()
    with torch.no_grad():
        other.model.layers[1].mlp.down_proj.weight.mul_(0.5)
        p, q = (each(windows).logits.double().log_softmax(-1) for each in (model, other))
    expected = (p.exp() * (p - q)).sum(-1).mean().item()
    assert Dense(model, windows).of_model(other) == pytest.approx(expected, rel=1e-3)
    assert Dense(model, windows).of_model(model) == pytest.approx(0, abs=1e-6)


def test_the_search_never_ends_worse_than_the_knapsack(windows, monkeypatch):
    monkeypatch.setattr(search, "TRIALS", 10)
    model = tiny_llama(heads=8, kv_heads=4)
    dense = Dense(model, windows)
    divergences = []
    for name in ("sensitivity", "search"):
        params = prune_params(criterion="obs", allocation=name, update="realign", ratio=0.3, ratio_of="parameters")
        pruned, _ = prune(tiny_llama(heads=8, kv_heads=4), windows, params)
        divergences.append(dense.of_model(pruned))
    assert divergences[1] <= divergences[0] * (1 + 1e-4)
