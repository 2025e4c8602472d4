"""`prune.budget`: prices add up to what the model really costs; it is kept to within one unit, or refused in a line."""

import pytest
import torch
from helpers import FAMILIES, prune_params, tiny_family, tiny_llama
from hypothesis import given, settings
from hypothesis import strategies as st

import stages.models.checkpoint  # noqa: F401 - lets ptflops build what transformers does not know
from stages.common.errors import UserError
from stages.models.parts import Parts
from stages.models.prunable import block_modules
from stages.models.surgery import keep_units
from stages.profile.macs import count_macs
from stages.prune.block import BLOCK, REMOVE_WHOLE, budget, costs
from stages.prune.block.allocation import search, sensitivity
from stages.prune.block.pruning import prune

EVERYWHERE = {"attention_layers": [0, 3], "mlp_layers": [0, 3]}
LENGTH = 16


@pytest.fixture(autouse=True)
def short_search(monkeypatch):
    monkeypatch.setattr(search, "TRIALS", 3)
    monkeypatch.setattr(sensitivity, "LEVELS", 4)


def modules_of(model):
    return block_modules(model, range(3), range(3))


def bytes_in_use(model, length: int = LENGTH) -> int:
    """Return the bytes of the weights and of the cache that a sequence of `length` tokens fills."""
    cache = model(torch.zeros(1, length, dtype=torch.int64), use_cache=True).past_key_values
    cached = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers if layer.keys is not None)
    return cached + sum(parameter.nbytes for parameter in model.parameters())


REAL = {"memory": bytes_in_use, "macs": lambda model: count_macs(model, LENGTH)}


@settings(max_examples=20, deadline=None)
@given(shape=st.sampled_from([(4, 4), (4, 2), (8, 2)]), tied=st.booleans(), bias=st.booleans(), data=st.data())
@pytest.mark.parametrize("measure", sorted(REAL))
def test_what_units_cost_is_what_the_model_costs_less_without_them(measure, shape, tied, bias, data):
    model = tiny_llama(heads=shape[0], kv_heads=shape[1], tied=tied, bias=bias)
    total, prices, rests = costs.MEASURES[measure](model, modules_of(model), LENGTH)
    units = [module.units for module in modules_of(model)]
    assert total == REAL[measure](model)
    counts = [data.draw(st.integers(0, module.units)) for module in modules_of(model)]
    counts[2] = min(counts[2], units[2] - 1)  # one attention stays
    for module, count in zip(modules_of(model), counts, strict=True):
        if count == module.units:
            Parts(model).skip(module.layer, module.kind)
        else:
            keep_units(module, torch.arange(module.units - count))
    measured = costs.Costs(total, prices, 0, 1, "", units, rests).less(counts)
    assert measured == costs.MEASURES[measure](model, modules_of(model), LENGTH)[0]
    if measure == "memory":  # ptflops builds its own copy, from the config
        assert measured == bytes_in_use(model)


@pytest.mark.parametrize("family", sorted(FAMILIES))
@pytest.mark.parametrize("length", [3, LENGTH])
def test_a_sliding_window_bounds_what_a_cache_holds(family, length):
    model = tiny_family(family)
    total, prices, _ = costs.memory(model, modules_of(model), length)
    assert total == bytes_in_use(model, length)
    for module in modules_of(model):
        keep_units(module, torch.arange(module.units - 1))
    assert total - sum(prices) == bytes_in_use(model, length)


@pytest.mark.parametrize("name", [name for name in BLOCK.takes["allocation"] if name not in REMOVE_WHOLE])
@pytest.mark.parametrize(("amount", "measure", "unit"), [(0.085, "memory", "MiB"), (0.37, "macs", "MMACs")])
@pytest.mark.parametrize("steps", [1, 2])
@pytest.mark.slow
def test_every_allocation_keeps_to_the_budget_and_wastes_less_than_a_unit(name, amount, measure, unit, steps, windows):
    model = tiny_llama(heads=8, kv_heads=4)
    largest = max(costs.MEASURES[measure](model, modules_of(model), LENGTH)[1]) / budget.UNITS[unit][0]
    assert REAL[measure](model) / budget.UNITS[unit][0] > amount
    params = prune_params(
        criterion="flap", allocation=name, update="refit", budget=f"{amount} {unit}", budget_length=LENGTH,
        iterative_steps=steps, **EVERYWHERE,
    )  # fmt: skip
    pruned, metrics = prune(model, windows, params)
    actual = REAL[measure](pruned) / budget.UNITS[unit][0]
    assert metrics["budget_actual"] == pytest.approx(actual)
    assert amount - largest < actual <= amount
    assert metrics["budget_specified"] == amount
    assert metrics["ratio_specified"] == metrics["ratio_actual"]


def test_a_latency_is_a_line_through_what_was_measured(windows, monkeypatch):
    # A clock that ticks with the widths of the model: 1000 ns, 100 a key/value head and 7 a channel of every layer.
    def ticks(model, prompt):
        heads = sum(len(layer.self_attn.k_proj.weight) // 8 for layer in model.model.layers)
        return 1000.0 + 100 * heads + 7 * sum(layer.mlp.down_proj.weight.shape[1] for layer in model.model.layers)

    monkeypatch.setattr(costs, "decode_time", ticks)
    model = tiny_llama(heads=8, kv_heads=4)
    total, prices, rests = costs.latency(model, modules_of(model), LENGTH)
    assert not any(rests)
    assert total == ticks(model, None)
    assert prices == pytest.approx([100, 7] * 3)
    pruned, metrics = prune(model, windows, prune_params(budget="0.002 ms", allocation="global", **EVERYWHERE))
    assert metrics["budget_actual"] == pytest.approx(ticks(pruned, None) / 1e6)
    assert 2000 - 7 < ticks(pruned, None) <= 2000


def test_measuring_the_latency_leaves_the_model_as_it_was(windows):
    model = tiny_llama(bias=True)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    total, prices, _ = costs.latency(model, modules_of(model), LENGTH)
    assert total > 0
    assert min(prices) >= 0
    assert model.state_dict().keys() == before.keys()
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_a_module_whose_width_costs_no_time_is_left_alone(windows, monkeypatch):
    slow_mlp = {"attention": 0.0, "mlp": 50.0}

    def latency(model, modules, length):
        return 5000.0, [slow_mlp[module.kind] for module in modules], [0.0] * len(modules)

    monkeypatch.setitem(costs.MEASURES, "latency", latency)
    pruned, metrics = prune(tiny_llama(), windows, prune_params(budget="0.004 ms", allocation="global"))
    assert {each["num_key_value_heads"] for each in Parts(pruned).widths} == {2}
    assert metrics["budget_actual"] == pytest.approx(0.004)


def test_a_budget_that_the_model_fits_already_removes_nothing(windows, capsys):
    model = tiny_llama()
    expected = {key: value.clone() for key, value in model.state_dict().items()}
    pruned, _ = prune(model, windows, prune_params(method="obs_realign", budget="1 GiB"))
    assert "fits prune.budget = 1 GiB as it is" in capsys.readouterr().out
    assert all(torch.equal(value, expected[key]) for key, value in pruned.state_dict().items())


@pytest.mark.parametrize("text", ["1 GiB", "1 GMACs"])
@pytest.mark.parametrize("family", ["llama", "qwen2"])
def test_a_budget_that_the_model_fits_leaves_no_room_for_biases(family, text, windows):
    model = tiny_family(family)
    names, size = set(model.state_dict()), model.num_parameters()
    pruned, metrics = prune(model, windows, prune_params(method="flap", budget=text, budget_length=LENGTH))
    assert type(pruned) is type(model) and set(pruned.state_dict()) == names
    assert metrics["parameters"] == metrics["parameters_before"] == size
    assert metrics["ratio_specified"] == metrics["ratio_actual"] == 0
    assert metrics["budget_actual"] == metrics["budget_before"]


@pytest.mark.parametrize(("measure", "unit"), [("memory", "MiB"), ("macs", "MMACs")])
@pytest.mark.parametrize("family", ["llama", "qwen2"])
def test_what_a_model_cost_before_is_without_the_room_for_biases(family, measure, unit, windows):
    model = tiny_family(family)
    cost = REAL[measure](model) / budget.UNITS[unit][0]
    params = prune_params(method="flap", budget=f"{0.9 * cost} {unit}", budget_length=LENGTH, **EVERYWHERE)
    pruned, metrics = prune(model, windows, params)
    assert metrics["budget_before"] == pytest.approx(cost)
    assert metrics["budget_actual"] == pytest.approx(REAL[measure](pruned) / budget.UNITS[unit][0])


def test_a_budget_out_of_reach_is_refused(windows):
    with pytest.raises(
        UserError, match=r"prune.budget = 0.01 MiB cannot be met: .* still takes 0\.\d+ MiB; set a larger"
    ):
        prune(tiny_llama(), windows, prune_params(budget="0.01 MiB"))


@pytest.mark.parametrize("text", ["1", "GiB", "1GiB", "0 GiB", "-1 ms", "nan ms", "inf ms", "1 GB", "1  GiB", ""])
def test_what_is_no_budget_is_refused(text):
    with pytest.raises(
        ValueError, match=r"budget\n.* is not allowed; expected null, or a number above 0 and one of MiB"
    ):
        prune_params(budget=text)
