"""Every criterion against a naive loop in float64."""

import copy
import math
from functools import cache

import pytest
import torch
from helpers import prune_params, tiny_llama

from stages.common.errors import UserError
from stages.models.prunable import block_modules
from stages.prune import gradients
from stages.prune.criteria import COMBINE, score_units

VARIANTS = ["param_first", "param_second", "param_mix", "vectorize"]


def naive_slices(model, module, tensors):
    """Return for each unit the slices of its matrices, [unit][matrix], each cut out index by index."""
    slices = []
    for unit in range(module.units):
        rows = []
        if module.kind == "mlp":
            mlp = model.model.layers[module.layer].mlp
            rows = [tensors[mlp.gate_proj][unit], tensors[mlp.up_proj][unit], tensors[mlp.down_proj][:, unit]]
        else:
            attention = model.model.layers[module.layer].self_attn
            size, query_heads = attention.head_dim, attention.q_proj.out_features // attention.head_dim
            own = range(unit * size, (unit + 1) * size)
            # transformers repeats key/value head j for query heads j*n_rep .. (j+1)*n_rep-1
            paired = [h for h in range(query_heads) if h // attention.num_key_value_groups == unit]
            queries = [row for h in paired for row in range(h * size, (h + 1) * size)]
            rows = [tensors[attention.k_proj][own], tensors[attention.v_proj][own]]
            rows += [tensors[attention.q_proj][queries], tensors[attention.o_proj][:, queries]]
        slices.append(rows)
    return slices


def linears(model):
    return [m for layer in model.model.layers for m in layer.modules() if isinstance(m, torch.nn.Linear)]


def references(model, modules, method, variant, grouping, windows):
    """Return the scores of each module's units by loops over its slices in float64."""
    double = {linear: linear.weight.detach().double() for linear in linears(model)}
    if method in ("l1", "l2"):
        power = int(method[1])
        values, outer = {k: w.abs() ** power for k, w in double.items()}, lambda total: total
    else:
        batch, *per_window = (dict(zip(linears(model), each, strict=True)) for each in naive_gradients(model, windows))
        outer = (lambda total: abs(total)) if variant == "vectorize" else (lambda total: total)
        values = {}
        for linear, w in double.items():
            g, h = batch[linear], sum(each[linear] ** 2 for each in per_window) / len(per_window)
            salience = {"param_first": w * g, "vectorize": w * g, "param_second": w * h * w}.get(variant)
            salience = w * g - 0.5 * w * h * w if variant == "param_mix" else salience
            values[linear] = salience if variant == "vectorize" else salience.abs()
    combine = {"sum": sum, "mean": lambda x: sum(x) / len(x), "max": max, "prod": math.prod, "first": lambda x: x[0]}
    for module in modules:
        slices = naive_slices(model, module, values)
        yield [combine[grouping]([outer(part.sum().item()) for part in matrices]) for matrices in slices]


@cache
def naive_gradients(model, windows):
    """Return the linears' gradients of the mean loss over all windows, then of each window, in float64."""
    double, found = copy.deepcopy(model).double(), []
    for batch in [windows, *windows.split(1)]:
        double.zero_grad()
        logits = double(batch).logits
        targets = batch[:, 1:].reshape(-1)
        torch.nn.functional.cross_entropy(logits[:, :-1].reshape(len(targets), -1), targets).backward()
        found.append([linear.weight.grad.clone() for linear in linears(double)])
    return found


@cache
def biased_llama(heads, kv_heads):
    """Return a model with biases; scoring leaves it as it is."""
    return tiny_llama(heads=heads, kv_heads=kv_heads, bias=True)


@pytest.mark.parametrize("shape", [(4, 4), (4, 2), (4, 1), (8, 2)])
@pytest.mark.parametrize("grouping", sorted(COMBINE))
@pytest.mark.parametrize(("method", "variant"), [("l1", ""), ("l2", ""), *[("taylor", v) for v in VARIANTS]])
def test_scores_equal_a_naive_loop(shape, grouping, method, variant, windows):
    model = biased_llama(*shape)
    params = prune_params(method=method, taylor=variant or "param_first", grouping=grouping)
    modules = block_modules(model, range(1, 3), range(3))
    found = score_units(method, model, modules, windows, params)
    naive = references(model, modules, method, variant, grouping, windows)
    for scores, numbers in zip(found, naive, strict=True):
        expected = torch.tensor(numbers, dtype=torch.float64)
        torch.testing.assert_close(scores, expected, rtol=2e-3, atol=expected.abs().max().item() * 1e-5)


@pytest.mark.parametrize("variant", VARIANTS)
def test_taylor_does_not_depend_on_how_the_windows_are_passed(variant, windows, monkeypatch):
    params = prune_params(method="taylor", taylor=variant)
    scores = []
    for tokens in (16, 32, 64):
        monkeypatch.setattr(gradients, "TOKENS_PER_PASS", tokens)
        model = tiny_llama()
        scores.append(score_units("taylor", model, block_modules(model, range(1, 3), range(1, 3)), windows, params))
        assert all(p.requires_grad and p.grad is None for p in model.parameters())
    for other in scores[1:]:
        for a, b in zip(scores[0], other, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("variant", VARIANTS)
def test_half_precision_neither_underflows_nor_overflows(dtype, variant, windows):
    model = tiny_llama(mlp=64)
    with torch.no_grad():
        for linear in linears(model):
            linear.weight.mul_(0.02)  # squared saliences leave float16's range
    modules = block_modules(model.to(dtype), range(1, 3), range(1, 3))
    params = prune_params(method="taylor", taylor=variant)
    for scores in score_units("taylor", model, modules, windows, params):
        assert torch.isfinite(scores).all()
        assert (scores > 0).all()


def test_random_is_drawn_by_the_seed(windows):
    model = tiny_llama()
    modules = block_modules(model, range(3), range(3))
    first, again, other = (
        torch.cat(score_units("random", model, modules, windows, prune_params(method="random", seed=seed)))
        for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert ((first >= 0) & (first < 1)).all()


def test_a_loss_that_is_not_finite_is_refused(windows):
    model = tiny_llama()
    with torch.no_grad():
        model.lm_head.weight.fill_(float("inf"))
    modules = block_modules(model, [1], [1])
    with pytest.raises(UserError, match="calibration loss is nan"):
        score_units("taylor", model, modules, windows, prune_params(method="taylor"))
