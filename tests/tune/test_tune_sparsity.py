"""Recovery of a sparse model leaves its zeros zero, and what is merged is what was trained."""

import json
from pathlib import Path

import pytest
import torch
from helpers import prune_params
from peft import PeftModel
from tune_helpers import VOCABULARY, tiny_model, trainable, tune_params

from stages.prune.weight.pruning import prune
from stages.tune import full, lora, sparsity

TOKENS = torch.randint(0, VOCABULARY, (2, 12), generator=torch.Generator().manual_seed(5))


def sparse_model(dtype=torch.float32):
    """Return a tiny model whose layers 1 and 2 are half zeros."""
    return prune(tiny_model().to(dtype), TOKENS, prune_params(method="wanda"))[0]


def zeros(model) -> dict[str, torch.Tensor]:
    """Return where the matrices of the decoder layers are zero."""
    names = (name for name, _ in model.named_parameters() if ".layers." in name and name.endswith("proj.weight"))
    return {name: model.get_parameter(name).detach() == 0 for name in names}


def train(model, parameters, steps: int = 3) -> None:
    """Take a few large steps."""
    optimizer = torch.optim.AdamW(parameters, lr=0.05, weight_decay=0.0)
    for _ in range(steps):
        optimizer.zero_grad()
        model(input_ids=TOKENS, labels=TOKENS).loss.backward()
        optimizer.step()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_merged_adapter_keeps_the_zeros_and_computes_what_was_trained(dtype):
    model = sparse_model(dtype)
    expected_zeros, before = zeros(model), model(TOKENS).logits.detach()
    tuned = lora.prepare(model, tune_params())
    torch.testing.assert_close(tuned.eval()(input_ids=TOKENS).logits, before)  # an untrained adapter is nothing
    train(tuned.train(), trainable(tuned).values())
    trained = tuned.eval()(input_ids=TOKENS).logits.detach()
    assert (trained - before).abs().max() > 0.1
    merged = lora.merge(tuned)
    tolerance = 1e-4 if dtype == torch.float32 else 0.5
    torch.testing.assert_close(merged(TOKENS).logits, trained, rtol=0, atol=tolerance)
    found = zeros(merged)
    for name, expected in expected_zeros.items():
        assert (found[name] | ~expected).all(), name
        assert found[name].double().mean() < 0.6


@pytest.mark.filterwarnings("ignore:Unexpected keyword arguments")
def test_the_files_of_a_masked_adapter_say_that_it_needs_a_mask(tmp_path):
    for name, model in (("sparse", sparse_model()), ("dense", tiny_model())):
        tuned = lora.prepare(model, tune_params(lora_dropout=0.0))
        train(tuned.train(), trainable(tuned).values())
        lora.save_adapter(tuned, Path("models/pruned"), tmp_path / name)
    card, config = (
        (tmp_path / "sparse/README.md").read_text(),
        json.loads((tmp_path / "sparse/adapter_config.json").read_text()),
    )
    assert "(W != 0) * scale * (B A)" in card and "models/merged" in card
    assert "multiply what the adapter adds to W by it" in config["espalier_mask"]
    dense = (tmp_path / "dense/README.md").read_text()
    assert "W != 0" not in dense and "espalier_mask" not in (tmp_path / "dense/adapter_config.json").read_text()

    # What the card says makes of PEFT's model the merged one.
    sparse = sparse_model()
    masks = zeros(sparse)
    by_hand = PeftModel.from_pretrained(sparse_model(), tmp_path / "sparse").merge_and_unload()
    with torch.no_grad():
        for name, mask in masks.items():
            by_hand.get_parameter(name)[mask] = 0
    trained = PeftModel.from_pretrained(sparse_model(), tmp_path / "sparse")
    sparsity.mask_adapters(trained)
    torch.testing.assert_close(by_hand(TOKENS).logits, trained.eval()(input_ids=TOKENS).logits)


def test_full_fine_tuning_keeps_the_zeros():
    model = sparse_model()
    expected = zeros(model)
    tuned = full.prepare(model, tune_params(method="full"))
    embeddings = tuned.model.embed_tokens.weight.detach().clone()
    train(tuned, tuned.parameters())
    found = zeros(tuned)
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert not torch.equal(tuned.model.embed_tokens.weight, embeddings)


def test_a_dense_model_is_trained_as_ever():
    model = tiny_model()
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight[0, 0] = 0  # by chance
    tuned = lora.prepare(model, tune_params())
    assert not any("get_delta_weight" in vars(module) for module in tuned.modules())
    full_model = full.prepare(tiny_model(), tune_params(method="full"))
    assert not any(parameter._backward_hooks for parameter in full_model.parameters())
