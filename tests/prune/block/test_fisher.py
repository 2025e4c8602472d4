"""Losses predicted by the Fisher matrix, against gradients through the whole model and measured divergences."""

import pytest
import torch
from helpers import prune_params, tiny_family, tiny_llama

from stages.models.parts import Parts
from stages.models.prunable import block_modules
from stages.prune.activations import Activations
from stages.prune.block.allocation import fisher
from stages.prune.block.divergence import Dense
from stages.prune.block.pruning import prune


@pytest.mark.parametrize("family", ["llama", "granite", "olmo2", "cohere normed", "gemma2", "gpt_neox"])
def test_gradients_are_those_of_the_drawn_tokens_log_likelihood(family, windows, monkeypatch):
    model, drawn = tiny_family(family), []
    parts = Parts(model)
    places = {(layer, kind) for layer in range(len(parts.layers)) for kind in ("attention", "mlp")}
    multinomial = torch.multinomial

    def noted(*arguments, **options):
        drawn.append(multinomial(*arguments, **options))
        return drawn[-1]

    monkeypatch.setattr(torch, "multinomial", noted)
    got = fisher.output_gradients(model, windows, 3, places)
    outputs = {}
    for layer, each in enumerate(parts.layers):
        for kind, half in (("attention", parts.attention(each)), ("mlp", parts.mlp(each))):
            half.output.register_forward_hook(
                lambda _, args, out, key=(layer, kind): outputs.update({key: out.requires_grad_()})
            )
    for draw, tokens in enumerate(torch.cat(drawn).T):
        logits = model(windows, use_cache=False).logits.flatten(0, 1)
        likelihood = logits.log_softmax(-1).gather(1, tokens[:, None]).sum()
        wanted = torch.autograd.grad(likelihood, list(outputs.values()))
        for key, gradient in zip(outputs, wanted, strict=True):
            rounded = gradient.flatten(0, 1).bfloat16()
            torch.testing.assert_close(got[key][draw], rounded, rtol=2**-7, atol=1e-5)  # its last bit may differ


@pytest.mark.parametrize("kind", ["attention", "mlp"])
def test_a_small_change_is_predicted_as_it_is_measured(kind, windows, monkeypatch):
    monkeypatch.setattr(fisher, "DRAWS", 200)
    model = tiny_llama()
    (module,) = block_modules(model, [1] if kind == "attention" else [], [1] if kind == "mlp" else [])
    gradients, dense = fisher.output_gradients(model, windows, 0, {(1, kind)}), Dense(model, windows)
    assert list(gradients) == [(1, kind)]
    activations = Activations(model, windows)
    predict = fisher.predicted_loss(activations.inputs(module), gradients[1, kind])
    with torch.no_grad():
        module.output.weight.mul_(0.9)
    assert predict() == pytest.approx(dense.from_layer(activations), rel=0.35)


def test_what_costs_nothing_goes_first(windows):
    model = tiny_llama()
    with torch.no_grad():
        model.model.layers[2].mlp.down_proj.weight.zero_()
    params = prune_params(method="obs_realign", allocation="fisher", attention_layers=None, mlp_layers=[0, 3])
    pruned, _ = prune(model, windows, params)
    widths = [layer.mlp.gate_proj.out_features for layer in pruned.model.layers]
    assert widths[2] == min(widths) < widths[0]
