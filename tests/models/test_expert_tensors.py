"""Experts as files hold them, one by one, and as the model does, stacked; and configs that no mixture is built from."""

import json

import pytest
import torch
from helpers import EXPERTS, tiny_experts, tiny_tokenizer
from safetensors.torch import load_file, save_file

from stages.common.errors import UserError
from stages.models.checkpoint import load_model, save_checkpoint


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    for family in EXPERTS:
        save_checkpoint(tiny_experts(family), tiny_tokenizer(), folder / family)
    return folder


@pytest.mark.parametrize("family", EXPERTS)
def test_experts_are_read_one_by_one_and_stacked(family, saved, tmp_path):
    model, loaded = tiny_experts(family), load_model(saved / family)
    one_by_one = load_file(saved / family / "model.safetensors")
    assert sum(".experts.5." in name for name in one_by_one) == 9
    weights = dict(loaded.named_parameters())
    assert all(torch.equal(weight, weights[name]) for name, weight in model.named_parameters())
    for file in (saved / family).iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    save_file(model.state_dict(), tmp_path / "model.safetensors", metadata={"format": "pt"})
    stacked = dict(load_model(tmp_path).named_parameters())
    assert all(torch.equal(weight, stacked[name]) for name, weight in weights.items())


def changed(saved, folder, change):
    """Return a copy of the Mixtral with its tensors and config changed by `change`."""
    for file in (saved / "mixtral").iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    tensors = load_file(folder / "model.safetensors")
    config = json.loads((folder / "config.json").read_text())
    change(tensors, config)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config))
    return folder


NAME = "model.layers.1.block_sparse_moe.experts.2.w3.weight"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tensors, _: tensors.pop(NAME), f"lacks weights: {NAME}"),
        (
            lambda tensors, _: tensors.update({NAME: tensors[NAME][1:]}),
            rf"{NAME} has shape \(11, 32\); expected \(12, ",
        ),
        (lambda tensors, _: tensors.update({NAME: tensors[NAME].int()}), "gate_up_proj holds numbers of type int32"),
        (
            lambda _, config: config.update(num_local_experts=7),
            r"mlp.gate.weight has shape \(6, 32\), but config.json asks for \(7, 32\)",
        ),
        (lambda _, config: config.update(num_experts_per_tok=7), "num_experts_per_tok = 7; expected 1 to .* = 6"),
        (lambda _, config: config.update(num_local_experts=0), "num_local_experts = 0; expected at least 1"),
    ],
)
def test_a_damaged_checkpoint_is_refused_by_name(change, message, saved, tmp_path):
    with pytest.raises(UserError, match=message):
        load_model(changed(saved, tmp_path, change))


@pytest.mark.parametrize("changes", [{"mlp_only_layers": [1]}, {"decoder_sparse_step": 2}])
def test_layers_without_experts_are_refused(changes, saved, tmp_path):
    config = json.loads((saved / "qwen3_moe" / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | changes))
    with pytest.raises(UserError, match=f"{next(iter(changes))} = .*; expected .*experts in every layer"):
        load_model(tmp_path)
