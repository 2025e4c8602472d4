"""Sparse pruning against direct readings of the papers' formulas in float64, and the laws it obeys."""

import copy
from types import SimpleNamespace

import pytest
import torch
from helpers import FAMILIES, prune_params, tiny_family, tiny_llama
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.models.parts import Parts
from stages.prune.groups import input_groups
from stages.prune.weight.criteria import magnitude, obs, wanda
from stages.prune.weight.masks import Quota, lowest
from stages.prune.weight.patterns import group_size
from stages.prune.weight.pruning import chooser, prune
from stages.prune.weight.update import none
from stages.prune.weight.update import obs as sweep

EVERYWHERE = {"attention_layers": [0, 3], "mlp_layers": [0, 3]}
METHODS = ("magnitude", "wanda", "sparsegpt")
WITH_REALIGN = (*METHODS, "sparsegpt_realign")  # which changes the last norm too


def random_matrix(out: int, width: int, seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return weights, inputs with columns of different sizes, and their damped Hessian."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(out, width, generator=generator, dtype=torch.float64)
    x = torch.randn(50, width, generator=generator, dtype=torch.float64) @ torch.randn(
        width, width, generator=generator, dtype=torch.float64
    )
    hessian = x.T @ x / len(x)
    return weight, x, hessian + 0.01 * hessian.diagonal().mean() * torch.eye(width, dtype=torch.float64)


def statistics(x: torch.Tensor, hessian: torch.Tensor) -> SimpleNamespace:
    """Return what criteria and updates read of the inputs."""
    factor = torch.linalg.cholesky(torch.linalg.inv(hessian), upper=True)
    return SimpleNamespace(moments=(x.mean(0), x.square().mean(0)), inverse_factor=factor)


def competitors(pattern: str, out: int, width: int) -> list[list[tuple[int, int]]]:
    """Return the groups of places (row, column) that compete, by loops."""
    if pattern == "matrix":
        return [[(i, j) for i in range(out) for j in range(width)]]
    size = width if pattern == "row" else group_size(pattern)
    return [[(i, j) for j in range(start, start + size)] for i in range(out) for start in range(0, width, size)]


def naive_mask(scores: torch.Tensor, pattern: str, share: float) -> torch.Tensor:
    """Return the mask of the lowest scores of every group, by sorting Python lists."""
    mask = torch.zeros_like(scores, dtype=torch.bool)
    for group in competitors(pattern, *scores.shape):
        for i, j in sorted(group, key=lambda place: scores[place].item())[: round(share * len(group))]:
            mask[i, j] = True
    return mask


def naive_sparsegpt(weight, hessian, pattern, share, block):
    """Return the pruned matrix by the definition: every step inverts the Hessian of the columns not yet passed."""
    weight, width = weight.clone(), weight.shape[1]
    together = block if pattern in ("row", "matrix") else group_size(pattern)
    for start in range(0, width, together):
        columns = range(start, min(start + together, width))
        first = [torch.linalg.inv(hessian[j:, j:])[0, 0].item() for j in columns]
        scores = weight[:, columns.start : columns.stop].square() / torch.tensor(first, dtype=torch.float64)
        mask = naive_mask(scores, pattern, share)
        for j in columns:
            inverse = torch.linalg.inv(hessian[j:, j:])
            for i in range(len(weight)):
                if mask[i, j - start]:
                    weight[i, j:] -= weight[i, j] / inverse[0, 0] * inverse[0]
                    weight[i, j] = 0
    return weight


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    case=st.sampled_from([("row", 0.5), ("row", 0.25), ("matrix", 0.5), ("matrix", 0.75), ("2:4", 0.5), ("1:4", 0.75)]),
    out=st.integers(1, 6),
    width=st.sampled_from([4, 8, 16]),
)
def test_masks_are_the_papers_formulas(seed, case, out, width):
    pattern, share = case
    weight, x, hessian = random_matrix(out, width, seed)
    formulas = {
        magnitude.Magnitude(): weight.abs(),
        wanda.Wanda(): weight.abs() * x.norm(dim=0),
        obs.Obs(): weight.square()
        / torch.tensor([torch.linalg.inv(hessian[j:, j:])[0, 0].item() for j in range(width)], dtype=torch.float64),
    }
    for criterion, scores in formulas.items():
        choose = chooser(criterion, statistics(x, hessian), pattern, Quota(share))
        pruned = none.NoUpdate().remove(weight, choose, group_size(pattern), None)
        expected = torch.where(naive_mask(scores, pattern, share), 0, weight)
        assert torch.equal(pruned, expected), type(criterion).__name__


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    case=st.sampled_from([("row", 0.5), ("matrix", 0.5), ("2:4", 0.5), ("1:4", 0.75), ("6:8", 0.25)]),
    blocks=st.integers(1, 3),
    rest=st.sampled_from([0, 8]),
)
def test_sparsegpt_is_the_optimal_brain_surgeon_column_by_column(seed, case, blocks, rest):
    pattern, share = case
    weight, x, hessian = random_matrix(3, 16 * blocks + rest, seed)
    choose = chooser(obs.Obs(), statistics(x, hessian), pattern, Quota(share))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sweep, "CHOSEN_TOGETHER", 16)
        patch.setattr(sweep, "UPDATED_TOGETHER", 8)
        pruned = sweep.Obs().remove(weight, choose, group_size(pattern), statistics(x, hessian))
    expected = naive_sparsegpt(weight, hessian, pattern, share, 16)
    assert torch.equal(pruned == 0, expected == 0)
    torch.testing.assert_close(pruned, expected, rtol=1e-8, atol=1e-9)


def test_blocks_that_no_group_fits_hold_whole_groups():
    weight, x, hessian = random_matrix(3, 24, 0)
    choose = chooser(obs.Obs(), statistics(x, hessian), "3:6", Quota(0.5))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sweep, "UPDATED_TOGETHER", 16)
        pruned = sweep.Obs().remove(weight, choose, 6, statistics(x, hessian))
    torch.testing.assert_close(pruned, naive_sparsegpt(weight, hessian, "3:6", 0.5, 16), rtol=1e-8, atol=1e-9)


@settings(max_examples=50, deadline=None)
@given(share=st.floats(0, 0.999), passes=st.lists(st.tuples(st.integers(1, 5), st.integers(1, 30)), max_size=8))
def test_a_quota_is_met_to_half_a_weight_and_shared_evenly(share, passes):
    quota, taken, total = Quota(share), 0, 0
    for groups, size in passes:
        counts = quota.take(groups, size)
        assert ((counts - share * size).abs() < 1 + 1e-6).all()
        taken, total = taken + counts.sum().item(), total + groups * size
    assert abs(taken - share * total) <= 0.5 + 1e-6


def test_of_equal_scores_the_first_go():
    assert lowest(torch.zeros(2, 4), "row", Quota(0.5)).tolist() == [[True, True, False, False]] * 2


@pytest.mark.parametrize(("method", "pattern"), [("wanda", "row"), ("wanda", "2:4"), ("magnitude", "matrix")])
def test_each_matrix_is_scored_on_the_model_as_pruned_so_far(method, pattern, windows):
    model, naive = tiny_llama(heads=8, kv_heads=4, bias=True), tiny_llama(heads=8, kv_heads=4, bias=True).double()
    params = prune_params(method=method, pattern=pattern)
    for group in input_groups(naive, params):
        caught: list[torch.Tensor] = []
        hook = group.output.register_forward_pre_hook(lambda _, args: caught.append(args[0].detach().flatten(0, 1)))  # noqa: B023
        with torch.no_grad():
            naive(windows)
        hook.remove()
        for linear in group.matrices.values():
            scores = linear.weight.detach().abs() * (caught[0].norm(dim=0) if method == "wanda" else 1)
            with torch.no_grad():
                linear.weight[naive_mask(scores, pattern, 0.5)] = 0
    pruned, _ = prune(model, windows, params)
    for (name, got), expected in zip(pruned.named_parameters(), naive.parameters(), strict=True):
        torch.testing.assert_close(got.detach(), expected.detach().float(), msg=name)


def test_sparsegpt_reads_a_layer_while_it_is_dense_and_the_layers_before_as_pruned(windows):
    model, naive = tiny_llama(heads=8, kv_heads=4, bias=True), tiny_llama(heads=8, kv_heads=4, bias=True).double()
    params = prune_params(method="sparsegpt", pattern="2:4")
    groups = list(input_groups(naive, params))
    for layer in range(3):
        caught: dict[str, torch.Tensor] = {}
        here = [group for group in groups if group.layer == layer]
        hooks = [
            group.output.register_forward_pre_hook(
                lambda _, args, name=group.name: caught.update({name: args[0].detach().flatten(0, 1)})  # noqa: B023
            )
            for group in here
        ]
        with torch.no_grad():
            naive(windows)
        for hook in hooks:
            hook.remove()
        for group in here:
            x = caught[group.name]
            hessian = x.T @ x / len(x)
            hessian += 0.01 * hessian.diagonal().mean() * torch.eye(len(hessian), dtype=torch.float64)
            for linear in group.matrices.values():
                with torch.no_grad():
                    linear.weight.copy_(naive_sparsegpt(linear.weight, hessian, "2:4", 0.5, 4))
    pruned, _ = prune(model, windows, params)
    for (name, got), expected in zip(pruned.named_parameters(), naive.parameters(), strict=True):
        torch.testing.assert_close(got.detach(), expected.detach().float(), msg=name, rtol=1e-2, atol=1e-3)


@settings(max_examples=15, deadline=None)
@given(ratio=st.floats(0, 0.6), method=st.sampled_from(WITH_REALIGN), pattern=st.sampled_from([None, "row", "matrix"]))
def test_ratio_of_parameters_is_met_to_within_one_weight(ratio, method, pattern):
    windows = torch.randint(1, 64, (2, 8), generator=torch.Generator().manual_seed(0))
    params = prune_params(method=method, pattern=pattern, ratio=ratio, ratio_of="parameters", **EVERYWHERE)
    _, metrics = prune(tiny_llama(vocab=16), windows.clamp(max=15), params)
    zeros = metrics["ratio_actual"] * metrics["parameters"]
    assert abs(zeros - ratio * metrics["parameters"]) < 1
    assert metrics["parameters"] == metrics["parameters_before"]


def test_only_the_matrices_of_the_ranges_lose_weights_and_metrics_say_how_many(windows):
    model = tiny_llama()
    before = {name: value.clone() for name, value in model.named_parameters()}
    pruned, metrics = prune(model, windows, prune_params(method="sparsegpt", attention_layers=[1, 2], mlp_layers=None))
    changed = {name for name, value in pruned.named_parameters() if not torch.equal(value, before[name])}
    assert changed == {f"model.layers.1.self_attn.{name}_proj.weight" for name in "qkvo"}
    zeros = sum(
        (value == 0).sum().item() - (before[name] == 0).sum().item() for name, value in model.named_parameters()
    )
    in_layer = sum(before[name].numel() for name in changed)
    assert zeros == in_layer / 2
    assert metrics["ratio_in_pruned_layers"] == 0.5
    assert metrics["parameters_nonzero"] == sum(value.count_nonzero().item() for value in pruned.parameters())
    assert metrics["parameters"] == metrics["parameters_before"] == sum(value.numel() for value in before.values())


@pytest.mark.parametrize("method", WITH_REALIGN)
def test_every_group_of_n_of_m_keeps_n(method, windows):
    pruned, _ = prune(tiny_llama(), windows, prune_params(method=method, pattern="2:4", **EVERYWHERE))
    for group in input_groups(pruned, prune_params(**EVERYWHERE)):
        for linear in group.matrices.values():
            assert ((linear.weight.view(-1, 4) != 0).sum(1) == 2).all()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("method", METHODS)
def test_every_architecture_loses_weights_and_nothing_else(method, family, windows):
    model = tiny_family(family)
    before = {name: value.clone() for name, value in model.named_parameters()}
    pruned, metrics = prune(model, windows, prune_params(method=method))
    changed = {name for name, value in pruned.named_parameters() if not torch.equal(value, before[name])}
    parts = Parts(model)
    matrices = {f"{name}.weight" for name in parts.family.linears if name != parts.family.head}
    assert len(changed) == 2 * len(matrices)
    assert all(name.endswith(tuple(matrices)) for name in changed)
    assert metrics["ratio_in_pruned_layers"] == 0.5
    assert torch.isfinite(pruned(windows).logits).all()


@pytest.mark.parametrize("method", WITH_REALIGN)
def test_ratio_zero_is_the_identity(method, windows):
    model = tiny_llama()
    before = copy.deepcopy(model.state_dict())
    pruned, metrics = prune(model, windows, prune_params(method=method, ratio=0))
    assert metrics["ratio_actual"] == 0
    assert all(torch.equal(value, before[name]) for name, value in pruned.state_dict().items())


def test_making_up_for_removed_weights_lowers_the_output_error(windows):
    errors = {}
    for update in ("none", "obs"):
        pruned, dense = tiny_llama(), tiny_llama()
        prune(pruned, windows, prune_params(method="sparsegpt", update=update))
        with torch.no_grad():
            errors[update] = (pruned(windows).logits - dense(windows).logits).square().mean().item()
    assert errors["obs"] < 0.8 * errors["none"]
