"""Single weights of models, calibration windows, patterns and ratios that leave little to work with."""

import pytest
import torch
from helpers import prune_params, tiny_llama
from test_weight import WITH_REALIGN

from stages.common.errors import UserError
from stages.prune.weight.pruning import prune


@pytest.mark.parametrize("method", WITH_REALIGN)
@pytest.mark.parametrize("pattern", ["row", "matrix", "2:4"])
@pytest.mark.parametrize("case", ["one token", "constant", "dead"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_degenerate_calibration_gives_finite_weights_at_the_ratio(method, pattern, case, dtype):
    model = tiny_llama()
    windows = torch.zeros(1, 2, dtype=torch.int64) if case == "one token" else torch.full((4, 16), 5)
    if case == "dead":
        with torch.no_grad():
            model.model.layers[1].mlp.up_proj.weight.zero_()
            model.model.layers[2].input_layernorm.weight.zero_()
    pruned, metrics = prune(model.to(dtype), windows, prune_params(method=method, pattern=pattern))
    assert all(torch.isfinite(each).all() for each in pruned.parameters())
    assert metrics["ratio_in_pruned_layers"] >= 0.5


def test_what_a_dead_channel_feeds_goes_first(windows):
    model = tiny_llama()
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight[:12] = 0
    pruned, _ = prune(model, windows, prune_params(method="wanda", attention_layers=None, mlp_layers=[1, 2]))
    assert (pruned.model.layers[1].mlp.down_proj.weight[:, :12] == 0).all()


def test_activations_that_are_not_finite_are_refused(windows):
    model = tiny_llama()
    with torch.no_grad():
        model.model.embed_tokens.weight.fill_(float("nan"))
    with pytest.raises(UserError, match="activations of layer 1 q_proj, k_proj, v_proj are not finite"):
        prune(model, windows, prune_params(method="wanda"))


def test_a_pattern_that_does_not_divide_the_inputs_is_refused(windows):
    with pytest.raises(UserError, match=r"'2:5' is not allowed for layer 1 q_proj, .* read 32 inputs; expected an m"):
        prune(tiny_llama(), windows, prune_params(method="wanda", pattern="2:5", ratio=0.6))


def test_a_ratio_of_parameters_out_of_reach_is_refused(windows):
    with pytest.raises(UserError, match=r"prune.ratio = 0.9 asks for [\d,]+ zeros, but the pruned matrices have"):
        prune(tiny_llama(), windows, prune_params(method="wanda", ratio=0.9, ratio_of="parameters"))
