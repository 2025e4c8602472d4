"""Every supported architecture through every block method, and its pruned class elsewhere."""

import os
import subprocess
import sys

import pytest
import torch
from helpers import FAMILIES, LIMITS, prune_params, tiny_family, tiny_llama, tiny_tokenizer
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from stages.models.checkpoint import load_model, load_tokenizer, save_checkpoint
from stages.models.families import FAMILIES as ARCHITECTURES
from stages.models.parts import Parts, plain_class, pruned_class
from stages.models.prunable import block_modules
from stages.models.surgery import keep_units, rebuild
from stages.prune.block import BLOCK, REMOVE_WHOLE
from stages.prune.block.allocation import search, sensitivity
from stages.prune.block.pruning import prune
from stages.prune.families import has_norms_after
from stages.prune.layer import LAYER
from stages.prune.layer import pruning as layer
from stages.prune.rank import pruning as rank
from stages.prune.weight import WEIGHT
from stages.prune.weight import pruning as weight

EVERYWHERE = {"attention_layers": [0, 3], "mlp_layers": [0, 3]}
# As few as cover the classes; the criteria and updates do not look at what the others differ in.
PLAIN_FAMILIES = ["llama", "qwen2", "olmo2", "cohere normed", "gemma2", "gpt_neox"]


def logits(model, tokens):
    with torch.no_grad():
        return model(tokens, use_cache=False).logits


def mlp_widths(model) -> list[int]:
    parts = Parts(model)
    return [parts.mlp_width(layer) for layer in parts.layers]


def silence(model, layer: int, heads: set[int], channels: set[int]) -> None:
    """Zero what the layer's output matrices read of key/value heads and channels.

    Where one norm divides all heads, the others' queries and keys are what they would be without these.
    """
    parts = Parts(model)
    attention, mlp = (each(parts.layers[layer]) for each in (parts.attention, parts.mlp))
    units = parts.widths[layer]["num_key_value_heads"]
    with torch.no_grad():
        attention.output.weight.unflatten(1, (units, -1))[:, list(heads)] = 0
        mlp.output.weight[:, list(channels)] = 0
        if attention.together:
            for linear, norm in attention.input_norms:
                share = (units - len(heads)) / units
                linear.weight.mul_(share**-0.5).unflatten(0, (units, -1))[list(heads)] = 0
                norm.weight.mul_(share**0.5)


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(
    family=st.sampled_from(sorted(FAMILIES)),
    kv_heads=st.sampled_from([1, 2, 4]),
    tied=st.booleans(),
    seed=st.integers(0, 1000),
    data=st.data(),
)
def test_removing_units_equals_zeroing_them(family, kv_heads, tied, seed, data):
    model, dense = (tiny_family(family, kv_heads=kv_heads, tied=tied, seed=seed) for _ in range(2))
    for module in block_modules(model, range(3), range(1, 3)):
        gone = data.draw(st.sets(st.integers(0, module.units - 1), max_size=module.units - 1))
        attention = module.kind == "attention"
        silence(dense, module.layer, gone if attention else set(), set() if attention else gone)
        keep_units(module, torch.tensor([unit for unit in range(module.units) if unit not in gone]))
    tokens = torch.randint(0, 64, (2, 9), generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(logits(rebuild(model), tokens), logits(dense, tokens), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("everywhere", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_pruned_checkpoint_loads_as_it_was_saved(family, everywhere, windows, tmp_path):
    """A plain one with a tied head, and one of the pruned class with a head of its own."""
    params = prune_params(method="taylor", **EVERYWHERE if everywhere else {})
    pruned, _ = prune(tiny_family(family, kv_heads=4, tied=everywhere), windows, params)
    save_checkpoint(pruned, tiny_tokenizer(), tmp_path / "one")
    loaded = load_model(tmp_path / "one")
    kind = ARCHITECTURES[family.split()[0]]
    plain, own = plain_class(kind), pruned_class(kind)
    fits = everywhere and not kind.heads_fill_hidden_size
    assert type(loaded) is type(pruned) is (plain if fits else own)
    assert (tmp_path / "one" / "modeling_pruned.py").is_file() is not fits
    assert torch.equal(logits(loaded, windows), logits(pruned, windows))
    save_checkpoint(loaded, load_tokenizer(tmp_path / "one"), tmp_path / "two")
    first, second = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "two"))
    assert first.keys() == second.keys()
    assert all(torch.equal(value, second[key]) for key, value in first.items())
    assert (tmp_path / "one/config.json").read_text() == (tmp_path / "two/config.json").read_text()


@pytest.mark.parametrize("family", FAMILIES)
def test_pruning_a_pruned_model_again(family, windows):
    once, _ = prune(tiny_family(family, kv_heads=4), windows, prune_params(method="l2", ratio=0.25))
    twice, _ = prune(once, windows, prune_params(method="l2", ratio=0.25, **EVERYWHERE))
    assert mlp_widths(twice) == [18, 13, 13]
    assert type(twice) is pruned_class(ARCHITECTURES[family.split()[0]])


@pytest.mark.parametrize("family", FAMILIES)
def test_a_cache_changes_nothing(family, windows):
    pruned, _ = prune(tiny_family(family), windows, prune_params(method="l2"))
    options = {"max_new_tokens": 12, "do_sample": False, "eos_token_id": None}
    cached = pruned.generate(windows[:1], **options)
    assert torch.equal(cached, pruned.generate(windows[:1], use_cache=False, **options))
    assert torch.equal(cached, pruned.generate(windows[:1], cache_implementation="static", **options))


@pytest.mark.parametrize("criterion", BLOCK.takes["criterion"])
@pytest.mark.parametrize("family", PLAIN_FAMILIES)
def test_every_criterion(family, criterion, windows):
    pruned, _ = prune(tiny_family(family), windows, prune_params(criterion=criterion))
    assert mlp_widths(pruned) == [24, 12, 12]
    assert torch.isfinite(logits(pruned, windows)).all()


def own_attention(model) -> list[tuple]:
    """Return what may differ from layer to layer."""
    parts = Parts(model)
    attention = [parts.attention(layer).module for layer in parts.layers]
    return [(getattr(each, "sliding_window", None), getattr(each, "use_rope", True)) for each in attention]


@pytest.mark.parametrize("criterion", LAYER.takes["criterion"])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_criterion_of_layers(family, criterion, windows, tmp_path):
    """The layers left keep their own attention: in Qwen2 the first does not slide, in SmolLM3 the second lacks rope."""
    model = tiny_family(family)
    own = own_attention(model)
    params = prune_params(method="shortgpt", criterion=criterion, ratio=0.3, attention_layers=[0, 3], mlp_layers=[0, 3])
    pruned, _ = layer.prune(model, windows, params)
    save_checkpoint(pruned, tiny_tokenizer(), tmp_path)
    loaded = load_model(tmp_path)
    assert type(loaded) is plain_class(ARCHITECTURES[family.split()[0]])
    left = loaded.config.base_layers
    assert len(left) == 2
    assert own_attention(loaded) == [own[i] for i in left]
    assert torch.equal(logits(loaded, windows), logits(pruned, windows))


@pytest.mark.parametrize("criterion", WEIGHT.takes["criterion"])
@pytest.mark.parametrize("family", PLAIN_FAMILIES)
def test_every_criterion_of_weights(family, criterion, windows, tmp_path):
    params = prune_params(method="sparsegpt", criterion=criterion, pattern="2:4", **EVERYWHERE)
    pruned, metrics = weight.prune(tiny_family(family), windows, params)
    assert metrics["ratio_in_pruned_layers"] == 0.5
    save_checkpoint(pruned, tiny_tokenizer(), tmp_path)
    assert type(load_model(tmp_path)) is plain_class(ARCHITECTURES[family.split()[0]])
    assert torch.equal(logits(load_model(tmp_path), windows), logits(pruned, windows))


@pytest.mark.parametrize("name", BLOCK.takes["allocation"])
@pytest.mark.parametrize("family", PLAIN_FAMILIES)
def test_every_allocation(family, name, windows, monkeypatch):
    described = ARCHITECTURES[family.split()[0]]
    if (name in REMOVE_WHOLE and described.parallel) or (name == "sublayers" and has_norms_after(described)):
        pytest.skip("refused")
    monkeypatch.setattr(search, "TRIALS", 2)
    monkeypatch.setattr(sensitivity, "LEVELS", 3)
    model = tiny_family(family, kv_heads=4)
    largest = max(module.cost for module in block_modules(model, range(3), range(3)))
    params = prune_params(
        criterion="wanda_sp", allocation=name, update="refit", ratio=0.3, ratio_of="parameters", **EVERYWHERE
    )
    _, metrics = prune(model, windows, params)
    removed = metrics["parameters_before"] - metrics["parameters"]
    assert abs(0.3 * metrics["parameters_before"] - removed) < largest


def has_bias(model) -> bool:
    """Return whether the MLPs' output matrices have a bias."""
    return Parts(model).mlp(Parts(model).layers[1]).output.bias is not None


@pytest.mark.parametrize("name", BLOCK.takes["update"])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_update_gives_a_checkpoint_that_loads(family, name, windows, tmp_path):
    if name in LIMITS[family.split()[0]]:
        return
    params = prune_params(criterion="flap", update=name, **EVERYWHERE)
    model = tiny_family(family, kv_heads=4)
    had_bias = has_bias(model)
    pruned, _ = prune(model, windows, params)
    save_checkpoint(pruned, tiny_tokenizer(), tmp_path)
    loaded = load_model(tmp_path)
    assert torch.equal(logits(loaded, windows), logits(pruned, windows))
    assert has_bias(loaded) == (name == "bias" or had_bias)
    assert loaded.num_parameters() == pruned.num_parameters()


@pytest.mark.slow  # a process that imports transformers
def test_a_script_elsewhere_loads_them_with_transformers_alone(windows, tmp_path):
    expected = {}
    models = {"low rank": rank.prune(tiny_llama(bias=True), windows, prune_params(method="svd_llm"))[0]}
    for family in FAMILIES:
        models[family], _ = prune(tiny_family(family), windows, prune_params(criterion="flap", update="bias"))
    for name, pruned in models.items():
        save_checkpoint(pruned, tiny_tokenizer(), tmp_path / name)
        expected[name] = logits(pruned, windows)
    save_file({"windows": windows}, tmp_path / "windows.safetensors")
    script = (
        "import sys, torch\n"
        "from safetensors.torch import load_file, save_file\n"
        "from transformers import AutoModelForCausalLM\n"
        "windows, logits = load_file('windows.safetensors')['windows'], {}\n"
        "for folder in sys.argv[1:]:\n"
        "    model = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True)\n"
        "    with torch.no_grad():\n"
        "        logits[folder] = model(windows).logits\n"
        "assert not any(name.startswith('stages') for name in sys.modules)\n"
        "save_file(logits, 'logits.safetensors')\n"
    )
    environment = {**os.environ, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "1", "PYTHONPATH": ""}
    subprocess.run([sys.executable, "-c", script, *expected], cwd=tmp_path, check=True, env=environment)
    got = load_file(tmp_path / "logits.safetensors")
    for name in expected:
        torch.testing.assert_close(got[name], expected[name])
