"""Checkpoints load everywhere they should, and nothing broken loads anywhere."""

import json
import subprocess
import sys

import pytest
import torch
from helpers import prune_params, tiny_llama, tiny_tokenizer
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from stages.common.errors import UserError
from stages.models.checkpoint import load_model, load_tokenizer, save_checkpoint
from stages.prune.block.pruning import prune

EVERYWHERE = {"attention_layers": [0, 3], "mlp_layers": [0, 3]}


@pytest.fixture(params=["mixed", "uniform"])
def pruned_folder(request, tmp_path, windows):
    """A pruned checkpoint: different widths per layer, or one width."""
    changes = EVERYWHERE if request.param == "uniform" else {}
    pruned, _ = prune(tiny_llama(tied=True), windows, prune_params(ratio=0.5, **changes))
    save_checkpoint(pruned, tiny_tokenizer(), tmp_path / "pruned")
    return tmp_path / "pruned"


def test_a_pruned_checkpoint_generates_the_same_with_both_caches(pruned_folder, windows):
    model = AutoModelForCausalLM.from_pretrained(pruned_folder)
    options = {"max_new_tokens": 12, "do_sample": False, "eos_token_id": None}
    dynamic = model.generate(windows[:1], **options)
    static = model.generate(windows[:1], cache_implementation="static", **options)
    without = model.generate(windows[:1], use_cache=False, **options)
    assert dynamic.shape == (1, windows.shape[1] + 12)
    assert torch.equal(dynamic, static)
    assert torch.equal(dynamic, without)


def test_a_pruned_checkpoint_round_trips_bit_for_bit(pruned_folder, tmp_path):
    model = load_model(pruned_folder)
    save_checkpoint(model, load_tokenizer(pruned_folder), tmp_path / "again")
    first, second = (load_file(folder / "model.safetensors") for folder in (pruned_folder, tmp_path / "again"))
    assert first.keys() == second.keys()
    assert all(torch.equal(value, second[key]) for key, value in first.items())
    assert (pruned_folder / "config.json").read_text() == (tmp_path / "again" / "config.json").read_text()


def test_one_width_is_a_stock_llama_and_nothing_else(pruned_folder):
    config = json.loads((pruned_folder / "config.json").read_text())
    if "per_layer_config" in config:
        assert config["architectures"] == ["PrunedLlamaForCausalLM"]
        assert (pruned_folder / "modeling_pruned.py").is_file()
    else:
        assert config["architectures"] == ["LlamaForCausalLM"]
        assert "auto_map" not in config
        assert not list(pruned_folder.glob("*.py"))
    assert not list(pruned_folder.glob("*.bin"))
    assert list(pruned_folder.glob("*.safetensors"))


@pytest.mark.slow  # a process that imports transformers
def test_a_script_elsewhere_loads_it_with_transformers_alone(pruned_folder, tmp_path, windows):
    with torch.no_grad():
        expected = load_model(pruned_folder)(windows).logits
    save_file({"windows": windows}, tmp_path / "windows.safetensors")
    script = tmp_path / "load.py"
    script.write_text(
        "import sys, torch\n"
        "from safetensors.torch import load_file, save_file\n"
        "from transformers import AutoModelForCausalLM\n"
        "model = AutoModelForCausalLM.from_pretrained(sys.argv[1], trust_remote_code=True)\n"
        "assert not any(name.startswith('stages') for name in sys.modules)\n"
        "with torch.no_grad():\n"
        "    save_file({'logits': model(load_file('windows.safetensors')['windows']).logits}, 'logits.safetensors')\n"
    )
    environment = {
        "HF_HOME": str(tmp_path / "hf"),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "PATH": "/usr/bin:/bin",
    }
    subprocess.run([sys.executable, script, pruned_folder], cwd=tmp_path, check=True, env=environment)
    torch.testing.assert_close(load_file(tmp_path / "logits.safetensors")["logits"], expected)


def test_a_folder_without_config_tokenizer_or_weights_is_refused(pruned_folder):
    for name, message in (
        ("tokenizer.json", "has no tokenizer"),
        ("model.safetensors", "has no weights"),
        ("config.json", "config.json is missing"),
    ):
        (pruned_folder / name).unlink()
        with pytest.raises(UserError, match=message):
            load_tokenizer(pruned_folder) if "tokenizer" in name else load_model(pruned_folder)


def test_truncated_weights_are_refused(pruned_folder):
    weights = pruned_folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"model.safetensors is truncated or corrupt"):
        load_model(pruned_folder)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(pruned_folder, value):
    weights = load_file(pruned_folder / "model.safetensors")
    weights["model.norm.weight"][3] = value
    save_file(weights, pruned_folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"model.norm.weight holds values that are not finite"):
        load_model(pruned_folder)


def test_missing_weights_are_refused(pruned_folder):
    weights = load_file(pruned_folder / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, pruned_folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"lacks .*layers.1.mlp.up_proj.weight"):
        load_model(pruned_folder)


def test_a_model_type_that_is_not_supported_is_refused_by_name(pruned_folder):
    config = json.loads((pruned_folder / "config.json").read_text())
    (pruned_folder / "config.json").write_text(json.dumps({**config, "model_type": "gpt2"}))
    with pytest.raises(UserError, match=r"model_type = 'gpt2' is not supported; expected one of: .*llama"):
        load_model(pruned_folder)
