"""Units, ratios and surgery against what the model really computes."""

import pytest
import torch
from helpers import prune_params, tiny_llama
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import LlamaConfig, LlamaForCausalLM

from stages.common.errors import UserError
from stages.models import surgery
from stages.models.parts import Parts
from stages.models.prunable import block_modules
from stages.models.surgery import keep_units, rebuild
from stages.prune.block.pruning import prune
from stages.prune.ranges import layer_range
from stages.prune.units import share_of_units

SHAPES = {"MHA": (4, 4), "GQA": (4, 2), "MQA": (4, 1), "GQA of four": (8, 2)}


def zeroed(model: LlamaForCausalLM, layer: int, heads: set[int], channels: set[int]) -> None:
    """Silence key/value heads and channels in a dense model, by the model's own pairing of query to key/value heads."""
    attention, mlp = model.model.layers[layer].self_attn, model.model.layers[layer].mlp
    size, repeats = attention.head_dim, attention.num_key_value_groups
    query_heads = attention.q_proj.out_features // size
    with torch.no_grad():
        for query_head in range(query_heads):
            if query_head // repeats in heads:
                attention.o_proj.weight[:, query_head * size : (query_head + 1) * size] = 0
        for channel in channels:
            mlp.down_proj.weight[:, channel] = 0


@settings(max_examples=25, deadline=None)
@given(
    shape=st.sampled_from(sorted(SHAPES)),
    tied=st.booleans(),
    bias=st.booleans(),
    seed=st.integers(0, 1000),
    data=st.data(),
)
def test_removing_units_equals_zeroing_them(shape, tied, bias, seed, data):
    heads, kv_heads = SHAPES[shape]
    model = tiny_llama(heads=heads, kv_heads=kv_heads, tied=tied, bias=bias, seed=seed)
    dense = tiny_llama(heads=heads, kv_heads=kv_heads, tied=tied, bias=bias, seed=seed)
    for module in block_modules(model, range(3), range(1, 3)):
        gone = data.draw(st.sets(st.integers(0, module.units - 1), max_size=module.units - 1))
        zeroed(
            dense, module.layer, gone if module.kind == "attention" else set(), gone if module.kind == "mlp" else set()
        )
        keep_units(module, torch.tensor([unit for unit in range(module.units) if unit not in gone]))
    tokens = torch.randint(0, 64, (2, 9), generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        expected, got = dense(tokens).logits, rebuild(model)(tokens).logits
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dim", [0, 1])
@pytest.mark.parametrize("block", [1, 16, 48, 96, 2**17])
@pytest.mark.parametrize("units", [[1, 2, 4, 5], [0, 1, 2, 5], [0, 5], [5], [0, 1], range(6)])
def test_kept_units_move_up_in_the_memory_that_is_there(dim, block, units, monkeypatch):
    monkeypatch.setattr(surgery, "BLOCK", block)
    whole = torch.randn(3, 24, 12)
    weight = whole[1]  # which does not begin where its storage does
    width = weight.shape[dim] // 6
    lines = torch.tensor([unit * width + i for unit in units for i in range(width)])
    expected, before = weight.index_select(dim, lines), whole.clone()
    cut = surgery.compact(weight, 6, dim, torch.tensor(units))
    assert torch.equal(whole[::2], before[::2])
    assert cut.data_ptr() == weight.data_ptr() and cut.is_contiguous()
    assert torch.equal(cut, expected)


@pytest.mark.parametrize(
    ("ratio", "heads", "channels", "parameters"),
    [(0.3, 3, 3942, 921_651_200), (0.4, 3, 3379, 873_224_192), (0.7, 2, 1689, 694_827_008)],
)
def test_tinyllama_counts_are_llm_pruners(ratio, heads, channels, parameters):
    config = LlamaConfig(
        vocab_size=32000, hidden_size=2048, intermediate_size=5632, num_hidden_layers=22,
        num_attention_heads=32, num_key_value_heads=4,
    )  # fmt: skip
    with torch.device("meta"):
        model = LlamaForCausalLM(config)
    assert model.num_parameters() == 1_100_048_384
    modules = block_modules(model, range(4, 18), range(4, 18))
    for module in modules:
        keep = module.units - share_of_units([module], ratio)
        keep_units(module, torch.arange(keep))
    assert Parts(model).widths[4] == {
        "num_attention_heads": 8 * heads, "num_key_value_heads": heads, "intermediate_size": channels,
    }  # fmt: skip
    assert Parts(model).widths[3]["intermediate_size"] == Parts(model).widths[18]["intermediate_size"] == 5632
    assert model.num_parameters() == parameters


@settings(max_examples=30, deadline=None)
@given(
    shape=st.sampled_from(sorted(SHAPES)),
    ratio=st.floats(0, 0.4),  # of multi-query attention there is little more to give
    allocation=st.sampled_from(["uniform", "global"]),
    steps=st.integers(1, 3),
    bias=st.booleans(),
)
def test_ratio_of_parameters_is_met_to_within_one_unit(shape, ratio, allocation, steps, bias):
    heads, kv_heads = SHAPES[shape]
    model = tiny_llama(heads=heads, kv_heads=kv_heads, bias=bias, vocab=16)
    params = prune_params(
        ratio=ratio, ratio_of="parameters", allocation=allocation, iterative_steps=steps,
        attention_layers=[0, 3], mlp_layers=[0, 3],
    )  # fmt: skip
    largest = max(module.cost for module in block_modules(model, range(3), range(3)))
    pruned, metrics = prune(model, torch.zeros(1, 4, dtype=torch.int64), params)
    target = ratio * metrics["parameters_before"]
    assert abs(metrics["parameters_before"] - metrics["parameters"] - target) < largest
    assert pruned.num_parameters() == metrics["parameters"]
    assert metrics["ratio_actual"] == pytest.approx(1 - metrics["parameters"] / metrics["parameters_before"])


def test_ratio_of_parameters_with_channels_left_is_met_to_within_one_channel():
    model = tiny_llama(mlp=200)
    before = model.num_parameters()
    _, metrics = prune(model, torch.zeros(1, 4, dtype=torch.int64), prune_params(ratio=0.3, ratio_of="parameters"))
    assert abs(0.3 * before - (before - metrics["parameters"])) <= 3 * 32 / 2


@pytest.mark.parametrize("shape", sorted(SHAPES))
@pytest.mark.parametrize("allocation", ["uniform", "global"])
@pytest.mark.parametrize("method", ["l2", "taylor", "random"])
def test_iterative_pruning_ends_where_one_step_does(shape, allocation, method, windows):
    heads, kv_heads = SHAPES[shape]
    counts = []
    for steps in (1, 2, 5):
        params = prune_params(method=method, ratio=0.5, allocation=allocation, iterative_steps=steps)
        pruned, _ = prune(tiny_llama(heads=heads, kv_heads=kv_heads), windows, params)
        assert torch.isfinite(pruned(windows).logits).all()
        counts.append(sum(each["intermediate_size"] for each in Parts(pruned).widths))
        assert all(
            each["num_attention_heads"] == each["num_key_value_heads"] * heads // kv_heads
            for each in Parts(pruned).widths
        )
    assert counts == [24 + 2 * 12] * 3


def test_ratio_zero_is_the_identity(windows):
    model = tiny_llama()
    expected = {key: value.clone() for key, value in model.state_dict().items()}
    pruned, metrics = prune(model, windows, prune_params(method="taylor", ratio=0))
    assert metrics["ratio_actual"] == 0
    assert all(torch.equal(value, expected[key]) for key, value in pruned.state_dict().items())


def test_a_ratio_too_small_says_so_and_removes_nothing_there(windows, capsys):
    pruned, _ = prune(tiny_llama(), windows, prune_params(ratio=0.2))
    assert (
        "0.2 removes nothing from layer 1 attention, layer 2 attention, which have too few" in capsys.readouterr().out
    )
    assert [each["num_key_value_heads"] for each in Parts(pruned).widths] == [2, 2, 2]
    assert [each["intermediate_size"] for each in Parts(pruned).widths] == [24, 19, 19]


def test_a_ratio_that_leaves_no_unit_is_refused(windows):
    with pytest.raises(UserError, match=r"prune.ratio = 0.99 leaves no unit in layer 1 attention"):
        prune(tiny_llama(), windows, prune_params(ratio=0.99))


def test_a_budget_out_of_reach_is_refused(windows):
    with pytest.raises(UserError, match=r"can give [\d,]+ at most"):
        prune(tiny_llama(), windows, prune_params(ratio=0.9, ratio_of="parameters"))


@pytest.mark.parametrize("bounds", [[2, 1], [1, 1], [0, 4], [3, 4]])
def test_a_range_outside_the_model_is_refused(bounds):
    with pytest.raises(UserError, match=r"prune.mlp_layers = .* expected \[start, end\] with 0 <= start < end <= 3"):
        layer_range("prune.mlp_layers", bounds, 3)


def test_uniform_widths_give_a_plain_llama_and_others_do_not(windows):
    everywhere = {"attention_layers": [0, 3], "mlp_layers": [0, 3]}
    plain, _ = prune(tiny_llama(), windows, prune_params(**everywhere))
    mixed, _ = prune(tiny_llama(), windows, prune_params())
    # transformers' LlamaConfig wants hidden_size to be a multiple of the heads: 32 is none of 3.
    odd, _ = prune(tiny_llama(kv_heads=4), windows, prune_params(ratio=0.25, **everywhere))
    assert [type(each).__name__ for each in (plain, mixed, odd)] == [
        "LlamaForCausalLM", "PrunedLlamaForCausalLM", "PrunedLlamaForCausalLM",
    ]  # fmt: skip
