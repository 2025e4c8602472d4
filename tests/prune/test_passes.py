"""How often the calibration windows pass a layer, as benchmarks/passes.py counts it."""

import importlib.util

import pytest
from helpers import ROOT, prune_params, tiny_llama

from stages.prune.pruning import prune

specification = importlib.util.spec_from_file_location("passes", ROOT / "benchmarks/passes.py")
assert specification is not None and specification.loader is not None
passes = importlib.util.module_from_spec(specification)
specification.loader.exec_module(passes)


@pytest.mark.parametrize(
    ("method", "most"),
    [
        *(("wanda_sp", 1), ("slimgpt", 1), ("wanda", 1)),
        *(("flap", 2), ("obs_realign", 2), ("best", 2), ("sparsegpt", 2), ("sparsegpt_realign", 2)),
    ],
)
def test_windows_pass_a_layer_at_most_twice(method, most, windows):
    model = tiny_llama()
    with passes.metered(model, windows.numel()) as meter:
        prune(model, windows, prune_params(method=method, attention_layers=[0, 3], mlp_layers=[0, 3]))
    assert most - 1 < meter.passes <= most
