"""Whole attentions and MLPs that are gone: outputs, checkpoint, cache, counts, padding and further pruning."""

import pytest
import torch
from helpers import LIMITS, prune_params, pruned_and_saved, tiny_family, tiny_llama, tiny_tokenizer

from analysis.arithmetic import exact_macs, parameters, shape_of
from stages.export.padded import pad
from stages.models.checkpoint import load_model, save_checkpoint
from stages.models.families import FAMILIES
from stages.models.parts import Parts
from stages.models.prunable import block_modules
from stages.models.surgery import rebuild
from stages.profile.macs import count_macs
from stages.prune.block import costs
from stages.prune.pruning import prune

GONE = [(0, "attention"), (1, "mlp"), (2, "attention")]


def without(model, gone=GONE):
    """Return `model` without the attentions and MLPs `gone`."""
    for layer, kind in gone:
        Parts(model).skip(layer, kind)
    return rebuild(model)


@torch.no_grad()
def silenced(model, gone=GONE):
    """Return `model` with what these attentions and MLPs write to the residual stream at zero."""
    parts = Parts(model)
    for layer, kind in gone:
        half = (parts.attention if kind == "attention" else parts.mlp)(parts.layers[layer])
        for parameter in half.output.parameters():
            parameter.zero_()
        for parameter in half.after.parameters():
            parameter.fill_(-parts.family.norm.offset)
    return model


@torch.no_grad()
def logits(model, tokens):
    return model(tokens).logits


@pytest.mark.parametrize("family", [name for name in LIMITS if not FAMILIES[name].parallel])
def test_a_skipped_half_equals_a_silent_one_and_is_in_no_file_and_no_cache(family, windows, tmp_path):
    skipped = FAMILIES[family].skipped_modules
    gone = [(layer, kind) for layer, kind in GONE if kind in skipped]
    dense, model = silenced(tiny_family(family), gone), without(tiny_family(family), gone)
    save_checkpoint(model, tiny_tokenizer(), tmp_path)
    loaded = load_model(tmp_path)
    for each in (model, loaded):
        torch.testing.assert_close(logits(each, windows), logits(dense, windows))
    prefixes = tuple(f"{FAMILIES[family].layers}.{layer}.{name}." for layer, kind in gone for name in skipped[kind])
    assert [name for name in dense.state_dict() if not name.startswith(prefixes)] == list(loaded.state_dict())
    options = {"max_new_tokens": 5, "do_sample": False, "eos_token_id": None}
    assert torch.equal(loaded.generate(windows, **options), loaded.generate(windows, use_cache=False, **options))
    cached = [each for each in loaded(windows, use_cache=True).past_key_values.layers if each.keys is not None]
    assert len(cached) == 1
    start = loaded(windows[:, :9], use_cache=True).past_key_values
    rest = loaded(windows[:, 9:], past_key_values=start).logits  # their positions come from the cache's length
    torch.testing.assert_close(rest, logits(dense, windows)[:, 9:])
    held = sum(each.nbytes for each in (cached[0].keys[:1], cached[0].values[:1], *loaded.parameters()))
    assert costs.memory(loaded, [], 16)[0] == held
    assert costs.macs(loaded, [], 16)[0] == count_macs(loaded, 16)
    assert parameters(shape_of(loaded.config.to_dict())) == loaded.num_parameters()
    if family == "llama":
        assert exact_macs(shape_of(loaded.config.to_dict()), 16) == count_macs(loaded, 16)
    again = rebuild(loaded)
    assert again.config.to_dict()["per_layer_config"] == model.config.to_dict()["per_layer_config"]
    torch.testing.assert_close(logits(pad(again), windows), logits(dense, windows))


@pytest.mark.parametrize(
    "changes",
    [
        {"method": "best", "ratio_of": "parameters"},
        {"method": "taylor"},
        {"method": "flap", "allocation": "fisher"},
        {"method": "knapsack"},
        {"method": "layer_taylor", "attention_layers": None},
        {"method": "shortgpt", "ratio": 0.34},
        {"method": "channel_taylor"},
        {"method": "wanda"},
        {"method": "sparsegpt"},
    ],
    ids=lambda changes: changes["method"],
)
def test_a_model_that_lacks_halves_is_pruned_as_one_where_they_are_silent(changes, windows, tmp_path):
    everywhere = {"attention_layers": [0, 3], "mlp_layers": [0, 3], "ratio": 0.25}
    pruned, metrics = prune(without(tiny_llama()), windows, prune_params(**everywhere | changes))
    assert 0 < metrics["parameters_nonzero"] < without(tiny_llama()).num_parameters()
    pruned.save_pretrained(tmp_path)
    loaded = load_model(tmp_path)
    assert logits(loaded, windows).isfinite().all()
    torch.testing.assert_close(logits(loaded, windows), logits(pruned, windows))
    gone = sum(each["num_attention_heads"] == 0 for each in Parts(loaded).widths)
    assert gone == (2 if len(Parts(loaded).layers) == 3 else len(Parts(loaded).layers) - 1)


def test_streaming_prunes_a_model_that_lacks_halves_alike(windows, tmp_path):
    streamed, _ = pruned_and_saved(without(tiny_llama()), windows, prune_params(method="obs_realign"), tmp_path)
    assert [each["num_attention_heads"] > 0 for each in Parts(streamed).widths] == [False, True, False]


def test_the_parameters_beside_the_units_go_with_the_module(windows):
    model = tiny_family("qwen3 biased")
    for module in block_modules(model, range(3), range(3)):
        before = model.num_parameters()
        if (module.layer, module.kind) != (2, "attention"):
            Parts(model).skip(module.layer, module.kind)
            assert before - model.num_parameters() == module.units * module.cost + module.rest
