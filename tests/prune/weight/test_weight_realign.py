"""Single weights that go while the others undo the drift of the stream: the equations in the open, in float64."""

import pytest
import torch
from helpers import FAMILIES, LIMITS, prune_params, pruned_and_saved, tiny_family, tiny_llama
from test_weight import EVERYWHERE, naive_sparsegpt

from stages.prune.groups import InputGroup, input_groups
from stages.prune.pruning import prune


def seen(model, group: InputGroup, windows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return what `group` reads, and the residual stream before and after its half, a row for each token."""
    layer = model.model.layers[group.layer]
    own = next(each for each in input_groups(model, prune_params(**EVERYWHERE)) if each.name == group.name)
    caught: dict[str, torch.Tensor] = {}
    hooks = [
        own.output.register_forward_pre_hook(lambda _, args: caught.update(x=args[0])),
        layer.register_forward_pre_hook(lambda _, args: caught.update(start=args[0])),
        layer.post_attention_layernorm.register_forward_pre_hook(lambda _, args: caught.update(middle=args[0])),
        layer.register_forward_hook(lambda _, args, out: caught.update(end=out)),
    ]
    with torch.no_grad():
        model(windows)
    for hook in hooks:
        hook.remove()
    before, after = ("start", "middle") if group.kind == "attention" else ("middle", "end")
    return caught["x"].flatten(0, 1), caught[before].flatten(0, 1), caught[after].flatten(0, 1)


@torch.no_grad()
def test_each_matrix_is_solved_for_towards_the_dense_stream_and_then_loses_weights(windows):
    model, naive, dense = (tiny_llama(heads=8, kv_heads=4, bias=True) for _ in range(3))
    naive, dense = naive.double(), dense.double()
    params = prune_params(method="sparsegpt_realign", pattern="2:4", **EVERYWHERE)
    groups = list(input_groups(naive, params))
    for group in groups:
        x, before, _ = seen(naive, group, windows)
        y, _, after = seen(dense, group, windows)
        square = x.T @ x / len(x)
        added = torch.diag(square.diagonal().clamp_min(1e-3 * square.diagonal().mean()))
        hessian = square + added
        for name, linear in group.matrices.items():
            if name in ("o_proj", "down_proj"):
                cross = (after - before - linear.bias).T @ x / len(x) + linear.weight @ added
            else:
                cross = linear.weight @ (y.T @ x / len(x) + added)
            linear.weight.copy_(naive_sparsegpt(cross @ torch.linalg.inv(hessian), hessian, "2:4", 0.5, 4))
    pruned, metrics = prune(model, windows, params)
    assert metrics["ratio_in_pruned_layers"] == 0.5
    for (name, got), expected in zip(
        pruned.model.layers.named_parameters(), naive.model.layers.parameters(), strict=True
    ):
        assert torch.equal(got == 0, expected == 0), name
        torch.testing.assert_close(got, expected.float(), msg=name, rtol=1e-3, atol=1e-4)
    x, y = (dense.model.norm(seen(each, groups[-1], windows)[2]) for each in (naive, dense))
    damping = 0.01 * x.square().mean(0).mean()
    fit = ((x * y).mean(0) + damping) / (x.square().mean(0) + damping)
    assert not torch.allclose(fit, torch.ones_like(fit), atol=0.01)
    torch.testing.assert_close(pruned.model.norm.weight, (dense.model.norm.weight * fit).float(), rtol=1e-3, atol=1e-4)


def test_the_logits_are_nearer_to_the_dense_models_than_sparsegpts(windows):
    errors = {}
    for method in ("sparsegpt", "sparsegpt_realign"):
        pruned, dense = tiny_llama(), tiny_llama()
        prune(pruned, windows, prune_params(method=method, **EVERYWHERE))
        with torch.no_grad():
            errors[method] = (pruned(windows).logits - dense(windows).logits).square().mean().item()
    assert errors["sparsegpt_realign"] < 0.9 * errors["sparsegpt"]


def test_only_the_matrices_of_the_ranges_and_the_last_norm_change(windows):
    pruned, dense = tiny_llama(), tiny_llama()
    prune(pruned, windows, prune_params(method="sparsegpt_realign", attention_layers=[1, 2], mlp_layers=None))
    pairs = zip(pruned.named_parameters(), dense.parameters(), strict=True)
    changed = {name for (name, got), before in pairs if not torch.equal(got, before)}
    assert changed == {f"model.layers.1.self_attn.{name}_proj.weight" for name in "qkvo"} | {"model.norm.weight"}


@pytest.mark.parametrize("criterion", ["magnitude", "wanda"])
def test_other_criteria_choose_among_the_solutions(criterion, windows):
    pruned, metrics = prune(
        tiny_llama(),
        windows,
        prune_params(method="sparsegpt_realign", criterion=criterion, pattern="row", **EVERYWHERE),
    )
    assert metrics["ratio_in_pruned_layers"] == 0.5
    assert torch.isfinite(pruned(windows).logits).all()


@pytest.mark.parametrize("family", [name for name in FAMILIES if "realign" not in LIMITS[name.split()[0]]])
def test_every_family_is_pruned_saved_and_loaded(family, windows, tmp_path):
    """In memory and streaming alike."""
    params = prune_params(method="sparsegpt_realign", pattern="2:4", **EVERYWHERE)
    _, metrics = pruned_and_saved(tiny_family(family), windows, params, tmp_path)
    assert metrics["ratio_in_pruned_layers"] == 0.5
