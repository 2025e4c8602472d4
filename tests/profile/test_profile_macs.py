"""MACs against torch's own counter on a real forward pass and against the closed formula."""

from copy import deepcopy

import pytest
import torch
from helpers import FAMILIES, prune_params, tiny_family, tiny_llama
from torch.utils.flop_counter import FlopCounterMode
from transformers import PreTrainedModel

from stages.models.modeling_pruned import PrunedLlamaConfig, PrunedLlamaForCausalLM
from stages.models.parts import Parts
from stages.profile import macs
from stages.profile.macs import count_macs
from stages.profile.memory import parameter_counts
from stages.prune.block.pruning import prune

SHAPES = {
    "GQA": {"heads": 4, "kv_heads": 2},
    "MHA": {"heads": 4, "kv_heads": 4},
    "MQA": {"heads": 4, "kv_heads": 1},
    "tied": {"tied": True},
    "wide heads": {"heads": 2, "kv_heads": 1, "head_dim": 24, "mlp": 40, "vocab": 100, "layers": 2},
}
WIDTHS = {1: (2, 1, 11), 2: (6, 3, 7)}  # layer: query heads, key/value heads, MLP width


def pruned() -> PreTrainedModel:
    """Return a random model whose layers differ in width."""
    keys = ("num_attention_heads", "num_key_value_heads", "intermediate_size")
    config = PrunedLlamaConfig(
        **{key: value for key, value in tiny_llama().config.to_dict().items() if key != "model_type"},
        allow_global_per_layer_attribute_access=True,
        per_layer_config={layer: dict(zip(keys, widths, strict=True)) for layer, widths in WIDTHS.items()},
    )
    return PrunedLlamaForCausalLM(config).eval()


def model_of(name: str) -> PreTrainedModel:
    return pruned() if name == "pruned" else tiny_llama(**SHAPES[name])


def closed_formula(model: PreTrainedModel, tokens: int) -> int:
    """Return tokens x (every Linear's weights) plus the two products of every pair of positions per query head."""
    linear = sum(module.weight.numel() for module in model.modules() if isinstance(module, torch.nn.Linear))
    parts = Parts(model)
    heads = sum(each["num_attention_heads"] for each in parts.widths) * parts.head_dim
    return tokens * linear + 2 * tokens * tokens * heads


@pytest.mark.parametrize("tokens", [1, 7, 32])
@pytest.mark.parametrize("name", [*SHAPES, "pruned"])
def test_torchs_counter_and_the_formula_agree(name, tokens):
    model = model_of(name)
    counted = count_macs(model, tokens)
    assert counted == closed_formula(model, tokens)
    eager = type(model)._from_config(deepcopy(model.config), attn_implementation="eager")
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        eager(torch.zeros(1, tokens, dtype=torch.int64), use_cache=False)
    assert 2 * counted == counter.get_total_flops()


@pytest.mark.parametrize("family", FAMILIES)
def test_every_architecture_and_its_pruned_class(family):
    """The norms of queries and keys, and a sliding window, cost nothing here; each bias one per output and token."""
    tokens = torch.zeros(1, 4, dtype=torch.int64)
    for model in (tiny_family(family), prune(tiny_family(family), tokens, prune_params())[0]):
        linears = [module for module in model.modules() if isinstance(module, torch.nn.Linear)]
        biases = sum(linear.out_features for linear in linears if linear.bias is not None)
        assert count_macs(model, 16) == closed_formula(model, 16) + 16 * biases


def test_the_thesis_model():
    """TinyLlama at 64 tokens, by hand: its 1,100,048,384 parameters without embeddings and norms, and attention."""
    with torch.device("meta"):
        model = tiny_llama(heads=32, kv_heads=4, layers=22, hidden=2048, mlp=5632, vocab=32000, head_dim=64)
    linear = 1_100_048_384 - 32_000 * 2048 - (2 * 22 + 1) * 2048
    assert count_macs(model, 64) == 64 * linear + 2 * 64 * 64 * 22 * 2048


def test_zeroed_weights_cost_what_they_did():
    model = tiny_llama()
    before = count_macs(model, 16)
    with torch.no_grad():
        model.model.layers[0].mlp.up_proj.weight.zero_()
        model.model.layers[1].self_attn.q_proj.weight[:8].zero_()
    assert count_macs(model, 16) == before
    counts = parameter_counts(model)
    padding = 32  # the embedding of the padding token is zero from the start
    assert counts["parameters"] - counts["parameters_nonzero"] == 24 * 32 + 8 * 32 + padding


def test_a_bias_adds_one_per_output():
    plain, biased = tiny_llama(), tiny_llama(bias=True)
    outputs = sum(module.bias.numel() for module in biased.modules() if getattr(module, "bias", None) is not None)
    assert count_macs(biased, 16) - count_macs(plain, 16) == 16 * outputs


def test_the_model_is_left_as_it_was():
    model = tiny_llama()
    count_macs(model, 16)
    assert model.config._attn_implementation == "sdpa"
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_a_failure_is_not_a_number(monkeypatch):
    monkeypatch.setattr(macs, "get_model_complexity_info", lambda *args, **options: (None, None))
    with pytest.raises(RuntimeError, match="ptflops could not count"):
        count_macs(tiny_llama(), 16)


@pytest.mark.parametrize("tokens", [8, 300])
@pytest.mark.parametrize(
    "rope",
    [
        {"rope_type": "linear", "factor": 2.0},
        {"rope_type": "dynamic", "factor": 2.0},
        {"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 128},
        {
            "rope_type": "llama3",
            "factor": 4.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 16,
        },
        {
            "rope_type": "longrope",
            "factor": 16.0,
            "short_factor": [1.0] * 4,
            "long_factor": [2.0] * 4,
            "original_max_position_embeddings": 16,
        },
    ],
    ids=lambda rope: rope["rope_type"],
)
def test_however_positions_are_scaled_the_products_are_counted(rope, tokens):
    model = tiny_llama()
    expected = count_macs(model, tokens)
    model.config.rope_parameters = rope | {"rope_theta": 10000.0}
    assert count_macs(model, tokens) == expected
    assert model.config.rope_parameters["rope_type"] == rope["rope_type"]
