"""Whole layers: what is left computes what the dense model does without the others."""

import pytest
import torch
from helpers import FAMILIES, prune_params, tiny_family, tiny_llama
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM

from stages.common.errors import UserError
from stages.models.checkpoint import load_model
from stages.models.parts import Parts
from stages.prune.block import pruning as block
from stages.prune.layer.criteria.taylor import Taylor
from stages.prune.layer.pruning import nearest, prune


def layer_params(layers: list[int] | None = None, **changes):
    return prune_params(**{"method": "shortgpt", "attention_layers": layers, "mlp_layers": layers or [1, 6], **changes})


@pytest.mark.parametrize("method", ["shortgpt", "layer_taylor", "first_layers", "last_layers"])
@pytest.mark.parametrize("mixed", [False, True])
def test_removing_layers_equals_skipping_them(method, mixed, windows, tmp_path):
    def base():
        model = tiny_llama(layers=6, bias=True)
        return block.prune(model, windows, prune_params(mlp_layers=[1, 3]))[0] if mixed else model

    pruned, metrics = prune(base(), windows, layer_params(method=method))
    left = pruned.config.base_layers
    assert metrics["layers"] == len(left) == 3
    if method == "first_layers":
        assert left == [0, 4, 5]
    if method == "last_layers":
        assert left == [0, 1, 2]
    dense = base()
    Parts(dense).layers = [Parts(dense).layers[i] for i in left]
    pruned.save_pretrained(tmp_path)
    with torch.no_grad():
        expected = dense(windows, use_cache=False).logits
        torch.testing.assert_close(pruned(windows).logits, expected)
        if pruned.config.model_type == "llama":
            loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
            assert loaded.config.base_layers == left
            cached = loaded.generate(windows[:1], max_new_tokens=4, do_sample=False, eos_token_id=None)
            again = loaded.generate(windows[:1], max_new_tokens=4, do_sample=False, eos_token_id=None, use_cache=False)
            assert torch.equal(cached, again)
    assert mixed or pruned.config.model_type == "llama"


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("method", ["shortgpt", "layer_taylor"])
def test_every_architecture_loses_layers(family, method, windows, tmp_path):
    model = tiny_family(family, layers=4)
    dense, kinds = tiny_family(family, layers=4), getattr(model.config, "layer_types", None)
    pruned, _ = prune(model, windows, layer_params(layers=[0, 4], method=method))
    left = pruned.config.base_layers
    assert not kinds or pruned.config.layer_types == [kinds[i] for i in left]
    pruned.save_pretrained(tmp_path)
    Parts(dense).layers = [Parts(dense).layers[i] for i in left]
    if kinds:
        dense.config.layer_types = [kinds[i] for i in left]
    dense.config.num_hidden_layers = 2
    with torch.no_grad():
        expected = dense(windows, use_cache=False).logits
        torch.testing.assert_close(load_model(tmp_path)(windows).logits, expected)


def test_taylor_is_the_summed_product_of_weights_and_gradients(windows):
    model = tiny_llama()
    got = Taylor().score(model, [0, 2], windows, layer_params())
    model.requires_grad_(True)
    model(windows, labels=windows).loss.backward()
    for value, index in zip(got, (0, 2), strict=True):
        weights = [p for name, p in model.model.layers[index].named_parameters() if name.endswith("proj.weight")]
        expected = sum((p.double() * p.grad.double()).abs().sum().item() for p in weights)
        assert value.item() == pytest.approx(expected, rel=1e-4)


def test_a_layer_that_does_nothing_goes_first(windows):
    model = tiny_llama(layers=6)
    with torch.no_grad():
        model.model.layers[3].self_attn.o_proj.weight.zero_()
        model.model.layers[3].mlp.down_proj.weight.zero_()
    for method in ("shortgpt", "layer_taylor"):
        pruned, _ = prune(model, windows, layer_params(method=method, ratio=0.2))
        assert pruned.config.base_layers == [0, 1, 2, 4, 5]
        model = tiny_llama(layers=6)
        with torch.no_grad():
            model.model.layers[3].self_attn.o_proj.weight.zero_()
            model.model.layers[3].mlp.down_proj.weight.zero_()


def test_steps_score_the_model_as_it_is_by_then(windows):
    """After the first removal the second layer to go is the one that then turns its input least."""
    params = layer_params(ratio=0.4, iterative_steps=2)
    pruned, _ = prune(tiny_llama(layers=6), windows, params)
    once, _ = prune(tiny_llama(layers=6), windows, layer_params(ratio=0.2))
    twice, _ = prune(once, windows, layer_params(layers=[1, 5], ratio=0.25))
    assert all(torch.equal(a, b) for a, b in zip(pruned.parameters(), twice.parameters(), strict=True))


@settings(max_examples=20, deadline=None)
@given(ratio=st.floats(0, 0.55), steps=st.integers(1, 3))
def test_ratio_of_parameters_is_met_to_within_half_a_layer(ratio, steps):
    model = tiny_llama(layers=6, vocab=16)
    size = sum(p.numel() for p in model.model.layers[0].parameters())
    params = layer_params(
        layers=[0, 6], method="last_layers", ratio=ratio, ratio_of="parameters", iterative_steps=steps
    )
    pruned, metrics = prune(model, torch.zeros(1, 4, dtype=torch.int64), params)
    wanted = ratio * metrics["parameters_before"]
    assert abs(metrics["parameters_before"] - metrics["parameters"] - wanted) <= size / 2
    assert pruned.num_parameters() == metrics["parameters"]


def test_the_nearest_whole_number_of_layers_goes(windows):
    assert [len(nearest(torch.zeros(4), [1] * 4, x)) for x in (0.4, 0.5, 1.49, 2.5)] == [0, 1, 1, 3]
    counts = [prune(tiny_llama(layers=6), windows, layer_params(ratio=r))[1]["layers"] for r in (0.05, 0.3, 0.5, 0.7)]
    assert counts == [6, 4, 3, 2]


def test_a_ratio_too_small_says_so(windows, capsys):
    prune(tiny_llama(layers=6), windows, layer_params(ratio=0.05))
    assert "prune.ratio = 0.05 removes no layer" in capsys.readouterr().out


def test_a_model_without_layers_is_refused(windows):
    with pytest.raises(UserError, match=r"prune.ratio = 0.9 leaves no layer"):
        prune(tiny_llama(), windows, layer_params(layers=[0, 3], ratio=0.9))


@pytest.mark.parametrize("method", ["shortgpt", "layer_taylor"])
@pytest.mark.parametrize("steps", [1, 3])
def test_a_ratio_out_of_reach_is_refused(method, steps, windows):
    """Of three steps the second already takes the only layer that may go."""
    params = layer_params(layers=[1, 2], method=method, ratio=0.9, ratio_of="parameters", iterative_steps=steps)
    with pytest.raises(UserError, match=r"prune.ratio asks for [\d,]+ parameters more than the pruned layers hold"):
        prune(tiny_llama(), windows, params)


@pytest.mark.parametrize("method", ["shortgpt", "layer_taylor", "first_layers", "last_layers"])
def test_ratio_zero_is_the_identity(method, windows):
    model = tiny_llama(layers=6)
    expected = {key: value.clone() for key, value in model.state_dict().items()}
    pruned, metrics = prune(model, windows, layer_params(method=method, ratio=0))
    assert (metrics["layers"], metrics["ratio_actual"]) == (6, 0)
    assert pruned.state_dict().keys() == expected.keys()
    assert all(torch.equal(value, expected[key]) for key, value in pruned.state_dict().items())


@pytest.mark.parametrize("method", ["shortgpt", "layer_taylor"])
@pytest.mark.parametrize("case", ["one token", "constant", "dead"])
def test_degenerate_calibration_removes_as_many(method, case):
    model = tiny_llama(layers=6)
    tokens = torch.zeros(1, 2, dtype=torch.int64) if case == "one token" else torch.full((4, 16), 5)
    if case == "dead":
        with torch.no_grad():
            model.model.embed_tokens.weight.zero_()  # no token, no layer that puts anything out
    pruned, _ = prune(model, tokens, layer_params(method=method))
    assert len(pruned.model.layers) == 3
    with torch.no_grad():
        assert torch.isfinite(pruned(tokens).logits).all()
