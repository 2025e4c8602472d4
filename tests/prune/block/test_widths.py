"""`prune.round_to` and `prune.layout`: what widths may be left, and that the ratio is still met."""

import pytest
import torch
from helpers import prune_params, tiny_llama
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.common.errors import UserError
from stages.models.parts import Parts
from stages.models.prunable import block_modules
from stages.prune.block import BLOCK, REMOVE_WHOLE
from stages.prune.block.allocation import search, sensitivity
from stages.prune.block.pruning import prune
from stages.prune.block.widths import allowed_widths

EVERYWHERE = {"attention_layers": [0, 3], "mlp_layers": [0, 3]}


@pytest.fixture(autouse=True)
def short_search(monkeypatch):
    monkeypatch.setattr(search, "TRIALS", 3)
    monkeypatch.setattr(sensitivity, "LEVELS", 4)


@settings(max_examples=30, deadline=None)
@given(
    mlp=st.integers(32, 90),
    round_to=st.sampled_from([8, 32]),
    ratio=st.floats(0.01, 0.9),
    how=st.sampled_from(["uniform", "global"]),
)
def test_kept_widths_are_multiples_and_each_layer_is_as_near_to_the_ratio_as_they_allow(mlp, round_to, ratio, how):
    params = prune_params(ratio=ratio, round_to=round_to, allocation=how, attention_layers=None)
    pruned, _ = prune(tiny_llama(mlp=mlp), torch.zeros(1, 4, dtype=torch.int64), params)
    first, *widths = (each["intermediate_size"] for each in Parts(pruned).widths)
    assert first == mlp
    assert all(width % round_to == 0 and round_to <= width <= mlp for width in widths)
    reachable = range(2 * round_to, 2 * (mlp // round_to * round_to) + 1, round_to)
    if how == "uniform":
        wanted = int(mlp * (1 - ratio))
        allowed = range(round_to, mlp + 1, round_to)
        assert [abs(each - wanted) for each in widths] == [min(abs(each - wanted) for each in allowed)] * 2
    else:
        wanted = int(2 * mlp * (1 - ratio))
        assert abs(sum(widths) - wanted) == min(abs(each - wanted) for each in reachable)


@pytest.mark.parametrize("name", BLOCK.takes["allocation"])
@pytest.mark.parametrize("round_to", [1, 8])
def test_the_ratio_of_parameters_is_met_to_within_one_portion_by_every_allocation(name, round_to, windows):
    params = prune_params(
        criterion="l2", allocation=name, ratio=0.3, ratio_of="parameters", round_to=round_to, **EVERYWHERE
    )
    pruned, metrics = prune(tiny_llama(heads=8, kv_heads=4, mlp=44), windows, params)
    widths = [each["intermediate_size"] for each in Parts(pruned).widths]
    assert all(width % round_to == 0 for width in widths)
    portion = max(3 * 32 * round_to, 6 * 8 * 32)
    assert abs(metrics["ratio_actual"] - 0.3) * metrics["parameters_before"] < portion


@pytest.mark.parametrize("name", [name for name in BLOCK.takes["allocation"] if name not in REMOVE_WHOLE])
@pytest.mark.parametrize("ratio_of", ["groups", "parameters"])
def test_a_uniform_layout_is_a_plain_llama_with_every_allocation(name, ratio_of, windows):
    params = prune_params(
        criterion="l2", allocation=name, ratio=0.45, ratio_of=ratio_of, layout="uniform", round_to=8, **EVERYWHERE
    )
    pruned, metrics = prune(tiny_llama(heads=8, kv_heads=4, mlp=44), windows, params)
    assert type(pruned).__name__ == "LlamaForCausalLM"
    assert len({tuple(each.values()) for each in Parts(pruned).widths}) == 1
    assert Parts(pruned).widths[0]["intermediate_size"] % 8 == 0
    if ratio_of == "parameters":
        # Half of the last step: eight channels of each MLP, or two heads of each layer once no channel is left to give.
        step = 3 * 2 * 1536 if name == "channels_first" else 2 * 3 * 3 * 32 * 8
        assert abs(metrics["ratio_actual"] - 0.45) * metrics["parameters_before"] < step / 2


def test_heads_of_a_uniform_layout_divide_the_hidden_size(windows):
    # Hidden 32, 8 query heads of 8, 4 key/value heads: 3 of them would leave 6 query heads, which LlamaConfig refuses.
    params = prune_params(ratio=0.25, layout="uniform", attention_layers=[0, 3], mlp_layers=None)
    pruned, _ = prune(tiny_llama(heads=8, kv_heads=4), windows, params)
    assert {each["num_attention_heads"] for each in Parts(pruned).widths} <= {4, 8}
    assert type(pruned).__name__ == "LlamaForCausalLM"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"round_to": 32}, r"round_to = 32 is not allowed, since layer 1 mlp has 24 channels"),
        (
            {"layout": "uniform"},
            r"attention_layers = \[1, 3\] is not allowed with .*uniform.*expected \[0, 3\] or null",
        ),
        ({"layout": "uniform", "attention_layers": None}, r"mlp_layers = \[1, 3\] is not allowed with .*uniform"),
    ],
)
def test_what_cannot_be_is_one_line(changes, message, windows):
    with pytest.raises(UserError, match=message):
        prune(tiny_llama(), windows, prune_params(**changes))


def test_a_uniform_layout_needs_layers_that_are_alike(windows):
    mixed, _ = prune(tiny_llama(), windows, prune_params(attention_layers=None))
    with pytest.raises(UserError, match=r"layers differ: their mlp has 12, 24 units; expected free"):
        prune(mixed, windows, prune_params(layout="uniform", **EVERYWHERE))


def test_uniform_layers_keep_query_heads_that_divide_the_hidden_size():
    """Four key/value heads with two query heads each: 2, 4 and 6 query heads divide 12, and 8 does not."""
    (attention,) = block_modules(tiny_llama(heads=8, kv_heads=4), [1], [])
    assert allowed_widths(attention, prune_params(layout="uniform"), 12) == [3, 2, 1]
    assert allowed_widths(attention, prune_params(layout="free"), 12) == [4, 3, 2, 1]
