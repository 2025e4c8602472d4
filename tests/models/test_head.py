"""The losses and gradients that are computed by hand are transformers' own, whatever a family does to its logits."""

import pytest
import torch
from helpers import FAMILIES, tiny_family, tiny_tokenizer
from safetensors.torch import load_file, save_file

from stages.evaluate.perplexity import batch_losses
from stages.models.checkpoint import load_model, save_checkpoint
from stages.models.parts import Head, Parts
from stages.prune.gradients import gradients
from stages.tune.next_token import next_token_loss


@pytest.mark.parametrize("family", FAMILIES)
def test_losses_and_gradients_are_those_of_transformers(family, windows):
    model, found = tiny_family(family), {}
    parts = Parts(model)
    weights = [half.output.weight for half in map(parts.attention, parts.layers)]
    gradients(model, windows, weights, lambda weight, gradient, _: found.update({weight: gradient}), False)
    output = model(input_ids=windows, labels=windows, use_cache=False)
    expected = torch.autograd.grad(output.loss, weights)
    for weight, gradient in zip(weights, expected, strict=True):
        torch.testing.assert_close(found[weight], gradient, rtol=1e-3, atol=1e-6)
    with torch.no_grad():
        hidden = model.get_decoder()(input_ids=windows, use_cache=False).last_hidden_state
        torch.testing.assert_close(Head(model)(hidden), output.logits)
        torch.testing.assert_close(batch_losses(model, windows).mean().float(), output.loss)
        predicted = windows[:, 1:].numel()
        torch.testing.assert_close(next_token_loss(model, windows, windows), output.loss * predicted)


def test_buffers_and_the_head_of_pythia_files(windows, tmp_path):
    """Its files hold the causal mask and the rotary frequencies of every layer, and call the head embed_out."""
    model = tiny_family("gpt_neox")
    save_checkpoint(model, tiny_tokenizer(), tmp_path)
    file = tmp_path / "model.safetensors"
    tensors = load_file(file)
    assert "embed_out.weight" in tensors
    tensors["gpt_neox.layers.0.attention.bias"] = torch.ones(1, 1, 8, 8, dtype=torch.bool)
    tensors["gpt_neox.layers.0.attention.masked_bias"] = torch.tensor(-1e9)
    tensors["gpt_neox.layers.0.attention.rotary_emb.inv_freq"] = torch.ones(2)
    save_file(tensors, file, metadata={"format": "pt"})
    with torch.no_grad():
        assert torch.equal(load_model(tmp_path)(windows).logits, model(windows).logits)
