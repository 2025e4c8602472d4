"""Which layers `auto` stands for, and that pruning keeps to them."""

import pytest
from helpers import prune_params, tiny_llama

from stages.prune.block.pruning import prune
from stages.prune.ranges import auto_range


@pytest.mark.parametrize(
    ("layers", "bounds"),
    [(1, [0, 1]), (2, [0, 2]), (3, [1, 2]), (6, [1, 5]), (22, [1, 21]), (30, [2, 28]), (32, [2, 30]), (80, [5, 75])],
)
def test_auto_leaves_out_a_fifteenth_at_each_end(layers, bounds):
    assert auto_range(layers) == bounds


def test_auto_becomes_a_range_of_the_model():
    params = prune_params(attention_layers="auto", mlp_layers=[0, 3]).with_ranges(30)
    assert (params.attention_layers, params.mlp_layers) == ([2, 28], [0, 3])
    params = prune_params(attention_layers=None, mlp_layers="auto").with_ranges(30)
    assert (params.attention_layers, params.mlp_layers) == (None, [2, 28])


def test_a_uniform_layout_prunes_every_layer():
    params = prune_params(attention_layers="auto", mlp_layers="auto", layout="uniform").with_ranges(30)
    assert (params.attention_layers, params.mlp_layers) == ([0, 30], [0, 30])


def test_only_layers_in_the_range_lose_units(windows):
    params = prune_params(method="l2", attention_layers="auto", mlp_layers="auto", ratio=0.5).with_ranges(4)
    model = tiny_llama(layers=4)
    before = [layer.mlp.gate_proj.out_features for layer in model.model.layers]
    pruned, _ = prune(model, windows, params)
    after = [layer.mlp.gate_proj.out_features for layer in pruned.model.layers]
    assert [new < old for new, old in zip(after, before, strict=True)] == [False, True, True, False]
