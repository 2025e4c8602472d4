"""A padded model is a plain one with the same outputs."""

import pytest
import torch
from export_helpers import ragged_llama, shapes
from helpers import FAMILIES, prune_params, tiny_family, tiny_tokenizer
from hypothesis import assume, given, settings
from transformers import AutoModelForCausalLM, LlamaForCausalLM

from stages.common.errors import UserError
from stages.export.formats import write
from stages.export.padded import pad
from stages.models.checkpoint import load_model
from stages.prune.block.pruning import prune
from stages.prune.pruning import prune as prune_any


@pytest.mark.slow
@given(shape=shapes())
@settings(max_examples=30, deadline=None)
def test_outputs_are_those_of_the_ragged_model(shape):
    assume(max(kv for kv, _ in shape["widths"]) * shape["group_size"] <= 32)
    model = ragged_llama(**shape)
    padded = pad(model)
    tokens = torch.randint(300, (2, 12), generator=torch.Generator().manual_seed(0))
    assert type(padded) is LlamaForCausalLM
    with torch.no_grad():
        torch.testing.assert_close(padded(tokens).logits, model(tokens).logits, rtol=1e-5, atol=1e-5)


def test_the_folder_loads_without_this_projects_code(tmp_path):
    model = ragged_llama([(3, 5), (1, 9)], group_size=1)  # three heads do not divide 32: four do
    padded = pad(model)
    assert (padded.config.num_attention_heads, padded.config.num_key_value_heads) == (4, 4)
    padded.save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert type(loaded) is LlamaForCausalLM and not list(tmp_path.glob("*.py"))
    tokens = torch.arange(10)[None]
    torch.testing.assert_close(loaded(tokens).logits, model(tokens).logits, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_pads_to_its_own_plain_class(family, windows):
    model, _ = prune(tiny_family(family), windows, prune_params(ratio=0.5))
    padded = pad(model)
    assert type(padded) is FAMILIES[family][0]
    with torch.no_grad():
        torch.testing.assert_close(padded(windows).logits, model(windows).logits, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["padded", "gguf-f16"])
def test_matrices_of_low_rank_are_refused(kind, windows, tmp_path):
    model, _ = prune_any(tiny_family("llama"), windows, prune_params(method="svd_llm", ratio=0.3))
    with pytest.raises(UserError, match=rf"{kind} does not hold matrices of low rank .* one of: safetensors-f"):
        write(model, tiny_tokenizer(), kind, tmp_path / "export")
    write(model, tiny_tokenizer(), "safetensors-float32", tmp_path / "export")
    assert load_model(tmp_path / "export").config.ranks == model.config.ranks


def test_a_bias_without_a_place_is_named(windows):
    model, _ = prune(tiny_family("qwen2"), windows, prune_params(method="flap", ratio=0.5))
    with pytest.raises(UserError, match=r"model\.layers\.0\.mlp\.down_proj\.bias has no place in a Qwen2ForCausalLM"):
        pad(model)


def test_heads_that_fit_no_plain_llama_are_refused():
    with pytest.raises(UserError, match=r"q_proj.weight: 3 groups of 3 heads .* hidden_size = 8"):
        pad(ragged_llama([(3, 4)], group_size=3, hidden=8))
