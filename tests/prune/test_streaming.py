"""Pruning layer by layer from the files: the same model and metrics, whatever fits into memory."""

import pytest
import torch
from helpers import LIMITS, prune_params, tiny_family, tiny_llama, tiny_tokenizer
from pydantic import ValidationError

from stages.common.errors import UserError
from stages.models.checkpoint import load_model, save_checkpoint
from stages.models.paging import bring_in, load_paged, save_model
from stages.prune.__main__ import layer_sizes
from stages.prune.pruning import prune

VARIANTS = [
    *({"method": name} for name in ("random", "random_free", "random_layers", "l1", "l2", "similarity")),
    *({"method": name} for name in ("wanda_sp", "flap", "activation_norm", "activity")),
    *({"method": name} for name in ("obs", "obs_realign", "slimgpt", "influence", "magnitude", "wanda", "sparsegpt")),
    *({"method": name, "ratio": 0.34} for name in ("shortgpt", "first_layers", "last_layers")),
    *({"method": "l2", "allocation": name} for name in ("global", "standardised", "random", "logarithmic")),
    *({"method": "l2", "update": name, "allocation": "global"} for name in ("bias", "refit", "realign")),
    {"method": "wanda_sp", "allocation": "adaptive", "iterative_steps": 3},
    {"method": "obs_realign", "allocation": "global", "iterative_steps": 2, "ratio_of": "parameters", "ratio": 0.2},
    {"method": "l2", "budget": "0.07 MiB"},
    {"method": "flap", "budget": "0.25 MMACs"},
    {"method": "l2", "layout": "uniform", "attention_layers": [0, 3], "mlp_layers": [0, 3]},
    {"method": "magnitude", "pattern": "2:4"},
    {"method": "l2", "ratio": 0.0},
]


def pruned_both_ways(model, windows, params, folder):
    """Return (model, metrics, table of layers) of pruning `model` in memory and from its files, both saved and read."""
    save_checkpoint(model, tiny_tokenizer(), folder / "base")
    results = []
    for loaded, name in (
        (load_model(folder / "base"), "whole"),
        (load_paged(folder / "base", folder / "paged"), "paged"),
    ):
        before = layer_sizes(loaded)
        pruned, metrics = prune(loaded, windows, params)
        after = layer_sizes(pruned)
        save_model(pruned, tiny_tokenizer(), folder / name)
        results.append((load_model(folder / name), metrics, before + after))
    return results


def check_equal(whole, paged):
    """Fail unless the two results are the same, weight by weight."""
    assert type(whole[0]) is type(paged[0])
    settings = [{**each.config.to_dict(), "_name_or_path": None} for each in (whole[0], paged[0])]
    assert settings[0] == settings[1]
    weights = [dict(each.named_parameters()) for each in (whole[0], paged[0])]
    assert weights[0].keys() == weights[1].keys()
    for name, weight in weights[0].items():
        assert weight.dtype == weights[1][name].dtype and torch.equal(weight, weights[1][name]), name
    assert whole[1] == paged[1]
    assert whole[2] == paged[2]


@pytest.mark.parametrize("changes", VARIANTS, ids=lambda changes: "-".join(map(str, changes.values())))
def test_the_result_is_that_of_the_whole_model(changes, windows, tmp_path):
    model = tiny_llama(bias=changes.get("update") == "refit")
    whole, paged = pruned_both_ways(model, windows, prune_params(**changes), tmp_path)
    check_equal(whole, paged)
    if changes.get("ratio") != 0.0:
        assert paged[1]["parameters_nonzero"] < model.num_parameters()


@pytest.mark.parametrize("method", ["flap", "obs_realign", "wanda"])
@pytest.mark.parametrize("family", ["qwen2 sliding", "qwen3 biased", "cohere normed", "gemma3_text", "gpt_neox"])
def test_other_architectures_and_tied_heads_in_bfloat16(family, method, windows, tmp_path):
    if method == "obs_realign" and "realign" in LIMITS[family.split()[0]]:
        method = "obs"
    model = tiny_family(family, tied=True).to(torch.bfloat16)
    check_equal(*pruned_both_ways(model, windows, prune_params(method=method), tmp_path))


def test_a_pruned_model_can_be_pruned_again(windows, tmp_path):
    pruned_both_ways(tiny_llama(layers=4), windows, prune_params(method="flap"), tmp_path)
    again = load_model(tmp_path / "paged")
    assert again.config.model_type == "pruned_llama"
    check_equal(*pruned_both_ways(again, windows, prune_params(method="obs", ratio=0.3), tmp_path / "again"))


def test_one_part_is_in_memory_at_a_time(tmp_path):
    save_checkpoint(tiny_llama(), tiny_tokenizer(), tmp_path / "base")
    model = load_paged(tmp_path / "base", tmp_path / "changed")
    first, second = model.model.layers[:2]

    def there():
        return {name.split(".weight")[0] for name, each in model.named_parameters() if not each.is_meta}

    assert there() == {"model.norm"}
    bring_in(first)
    assert {name.split(".")[2] for name in there() - {"model.norm"}} == {"0"}
    bring_in(second)
    assert {name.split(".")[2] for name in there() - {"model.norm"}} == {"1"}
    assert not (tmp_path / "changed").exists()  # nothing was written to
    with torch.no_grad():
        second.mlp.up_proj.weight[0] = 7
    bring_in(first)
    assert [file.name for file in (tmp_path / "changed").iterdir()] == ["model.layers.1.safetensors"]
    bring_in(second)
    assert (second.mlp.up_proj.weight[0] == 7).all()


@pytest.mark.parametrize(
    ("changes", "beside"),
    [
        ({"method": "taylor"}, "criterion = taylor"),
        ({"method": "layer_taylor"}, "criterion = taylor"),
        ({"method": "knapsack_realign"}, "allocation = sensitivity"),
        ({"method": "search"}, "allocation = search"),
        ({"method": "channel_l2"}, "structure = channel"),
        ({"method": "l2", "budget": "12 ms"}, "budget = 12 ms"),
    ],
)
def test_what_needs_the_whole_model_is_refused(changes, beside):
    with pytest.raises(ValidationError, match=f"streaming = true does not go with {beside}; expected false"):
        prune_params(streaming=True, **changes)


def test_broken_checkpoints_are_one_line(tmp_path):
    model = tiny_llama()
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight[0, 0] = torch.nan
    save_checkpoint(model, tiny_tokenizer(), tmp_path)
    paged = load_paged(tmp_path, tmp_path / "changed")
    with pytest.raises(UserError, match=r"layers\.1\.mlp\.up_proj\.weight holds values that are not finite"):
        bring_in(paged.model.layers[1])
    model.config.intermediate_size += 1
    model.config.save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"down_proj.weight has shape .*, but config\.json asks for"):
        load_paged(tmp_path, tmp_path / "changed")
    model.config.intermediate_size -= 1
    model.config.num_hidden_layers += 1
    model.config.save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"lacks weights: model\.layers\.3\."):
        load_paged(tmp_path, tmp_path / "changed")
