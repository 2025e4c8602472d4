"""Low rank against direct readings of the papers' formulas in float64, and the laws it obeys."""

import copy
from functools import partial

import pytest
import torch
from helpers import LIMITS, prune_params, pruned_and_saved, tiny_experts, tiny_family, tiny_llama
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.arithmetic import exact_macs, parameters, shape_of
from stages.common.errors import UserError
from stages.models.modeling_pruned import LowRank
from stages.models.parts import Parts, pruned_class
from stages.models.surgery import rebuild
from stages.profile.macs import count_macs
from stages.prune.activations import Activations
from stages.prune.groups import input_groups
from stages.prune.pruning import prune
from stages.prune.rank.allocation import Size, allocation
from stages.prune.rank.factors import factors, squared_values

DOUBLE = torch.float64
# In biases, matrices of several parts, gates, and what comes after the output matrices.
DIFFERENT = ["llama", "qwen2", "granite", "olmo2", "cohere normed", "gpt_neox", "phi3", "opt"]


def product(module: LowRank) -> torch.Tensor:
    return (module.left.weight @ module.right.weight).detach()


def svd_llm(weight: torch.Tensor, hessian: torch.Tensor, rank: int) -> torch.Tensor:
    """Return the product by SVD-LLM's words: SVD of W S, cut off, times the inverse of S."""
    root = torch.linalg.cholesky(hessian)
    left, values, right = torch.linalg.svd(weight @ root)
    return left[:, :rank] @ torch.diag(values[:rank]) @ right[:rank] @ torch.linalg.inv(root)


def damped(square: torch.Tensor, share: float = 0.01) -> torch.Tensor:
    return square + share * square.diagonal().mean() * torch.eye(len(square), dtype=DOUBLE)


def low_rank(model) -> list[LowRank]:
    return [module for module in model.modules() if isinstance(module, LowRank)]


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    shape=st.tuples(st.integers(2, 12), st.integers(2, 12)),
    white=st.booleans(),
    data=st.data(),
)
def test_no_matrix_of_the_rank_loses_less_and_the_loss_is_what_is_cut_off(seed, shape, white, data):
    rank = data.draw(st.integers(1, min(shape)))
    generator = torch.Generator().manual_seed(seed)
    draw = partial(torch.randn, generator=generator, dtype=DOUBLE)
    weight, x = draw(*shape), draw(40, shape[1]) @ draw(shape[1], shape[1])
    metric = None if white else damped(x.T @ x)
    root = torch.eye(shape[1], dtype=DOUBLE) if white else torch.linalg.cholesky(metric)
    values = torch.linalg.svdvals(weight @ root).square()
    torch.testing.assert_close(squared_values(weight, metric), values, rtol=1e-6, atol=1e-9 * values[0].item())
    left, right = factors(weight, metric, rank)
    assert (left.shape, right.shape) == ((shape[0], rank), (rank, shape[1]))
    loss = ((weight - left @ right) @ root).square().sum()
    torch.testing.assert_close(loss, values[rank:].sum(), rtol=1e-6, atol=1e-9 * values[0].item())
    torch.testing.assert_close(left @ right, svd_llm(weight, root @ root.T, rank), rtol=1e-5, atol=1e-6)
    for start in (left, draw(shape[0], rank)):  # the best of any other column space loses no less
        other = start + 0.1 * draw(shape[0], rank)
        best = other @ torch.linalg.lstsq(other, weight @ root).solution
        assert (weight @ root - best).square().sum() >= loss * (1 - 1e-9) - 1e-12 * values[0]


SIZES = st.lists(st.builds(Size, st.integers(1, 40), st.integers(1, 40)), min_size=1, max_size=8)


@settings(max_examples=60, deadline=None)
@given(sizes=SIZES, share=st.floats(0, 1), name=st.sampled_from(["uniform", "global"]), seed=st.integers(0, 1000))
def test_the_weights_kept_are_met_to_within_a_unit_and_every_rank_saves(sizes, share, name, seed):
    dense = sum(size.dense for size in sizes)
    least = sum(size.kept(1 if size.most else None) for size in sizes)
    kept = least + share * (dense - least)
    generator = torch.Generator().manual_seed(seed)
    values = [torch.rand(min(s.out, s.width), generator=generator, dtype=DOUBLE).sort().values.flip(0) for s in sizes]
    ranks = allocation(name).ranks(sizes, kept, values)
    assert all(rank is None or 1 <= rank <= size.most for size, rank in zip(sizes, ranks, strict=True))
    assert all(rank * size.unit < size.dense for size, rank in zip(sizes, ranks, strict=True) if rank)
    left = sum(size.kept(rank) for size, rank in zip(sizes, ranks, strict=True))
    assert abs(left - kept) <= max(size.unit for size in sizes)


def test_global_cuts_where_least_is_lost():
    size = Size(8, 8)
    steep, flat = 0.01 ** torch.arange(8, dtype=DOUBLE), torch.ones(8, dtype=DOUBLE)
    ranks = allocation("global").ranks([size] * 3, 2 * size.dense + 2 * size.unit, [flat, steep, flat])
    assert ranks == [None, 2, None]
    assert allocation("uniform").ranks([size] * 3, 96, []) == [2, 2, 2]


@pytest.mark.parametrize("method", ["svd", "svd_llm"])
def test_each_matrix_is_cut_in_the_model_as_pruned_so_far(method, windows):
    model, naive = tiny_llama(bias=True), tiny_llama(bias=True).double()
    pruned, metrics = prune(model, windows, prune_params(method=method, ratio=0.4))
    assert metrics["ratio_in_pruned_layers"] == pytest.approx(0.4, abs=56 / 6720)
    for group in input_groups(naive, prune_params()):
        caught: list[torch.Tensor] = []
        hook = group.output.register_forward_pre_hook(lambda _, args: caught.append(args[0].detach().flatten(0, 1)))  # noqa: B023
        with torch.no_grad():
            naive(windows)
        hook.remove()
        hessian = damped(caught[0].T @ caught[0] / len(caught[0]))
        half = "self_attn" if group.kind == "attention" else "mlp"
        for name, linear in group.matrices.items():
            got = pruned.model.layers[group.layer].get_submodule(f"{half}.{name}")
            metric = hessian if method == "svd_llm" else torch.eye(len(hessian), dtype=DOUBLE)
            with torch.no_grad():
                linear.weight.copy_(svd_llm(linear.weight, metric, got.right.out_features))
            torch.testing.assert_close(product(got), linear.weight.float().detach(), rtol=1e-3, atol=1e-4)
            assert torch.equal(got.left.bias, linear.bias.float())
    with torch.no_grad():
        torch.testing.assert_close(pruned(windows).logits, naive(windows).logits.float(), rtol=1e-3, atol=1e-3)


def read_by(model, module, windows) -> torch.Tensor:
    """Return what `module` of `model` reads of the windows, a row for each token."""
    caught = []
    hook = module.register_forward_pre_hook(lambda _, args: caught.append(args[0].detach().flatten(0, 1)))
    with torch.no_grad():
        model(windows)
    hook.remove()
    return caught[0]


def test_realign_is_the_best_of_its_rank_for_the_dense_models_stream(windows):
    """The first output matrix that is cut, whose inputs and stream have drifted, solved for in the open."""
    model, dense = tiny_llama(), tiny_llama().double()
    params = prune_params(method="svd_llm", update="realign", ratio=0.4, mlp_layers=None, attention_layers=[1, 2])
    pruned, _ = prune(model, windows, params)
    cut = pruned.double().model.layers[1].self_attn
    weight = dense.model.layers[1].self_attn.o_proj.weight.detach()
    x, y = read_by(pruned, cut.o_proj, windows), read_by(dense, dense.model.layers[1].self_attn.o_proj, windows)
    target = y @ weight.T  # both streams are the same before this attention
    square = x.T @ x / len(x)
    added = torch.diag(square.diagonal())
    solution = (target.T @ x / len(x) + weight @ added) @ torch.linalg.inv(square + added)
    expected = svd_llm(solution, square + added, cut.o_proj.right.out_features)
    torch.testing.assert_close(product(cut.o_proj), expected, rtol=1e-3, atol=1e-4)
    assert not torch.equal(pruned.model.norm.weight, dense.model.norm.weight)


def test_realigned_matrices_that_read_the_stream_put_out_what_they_did_on_the_dense_models(windows):
    """Gate and up behind an attention that was cut, whose stream has drifted, solved for in the open."""
    dense = tiny_llama().double()
    params = prune_params(method="svd_llm", update="realign", ratio=0.4, mlp_layers=[1, 2], attention_layers=[1, 2])
    pruned, _ = prune(tiny_llama(), windows, params)
    cut, before = pruned.double().model.layers[1].mlp, dense.model.layers[1].mlp
    x, y = read_by(pruned, cut, windows), read_by(dense, before, windows)
    assert not torch.allclose(x, y, rtol=0.01)
    square, cross = x.T @ x / len(x), y.T @ x / len(x)
    added = torch.diag(square.diagonal())
    factor = (cross + added) @ torch.linalg.inv(square + added)
    for name in ("gate_proj", "up_proj"):
        thin, weight = getattr(cut, name), getattr(before, name).weight.detach()
        expected = svd_llm(weight @ factor, square + added, thin.right.out_features)
        torch.testing.assert_close(product(thin), expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("family", DIFFERENT)
def test_every_family_is_cut_saved_loaded_and_counted(family, windows, tmp_path):
    """In memory and streaming alike, with the closed formulas for parameters and multiplications."""
    realign = "realign" not in LIMITS[family.split()[0]]
    params = prune_params(
        method="svd_llm", ratio=0.15, ratio_of="parameters", allocation="global", update="realign" if realign else None
    )
    base = tiny_family(family)
    model, metrics = pruned_and_saved(base, windows, params, tmp_path)
    assert type(model) is pruned_class(Parts(model).family)
    assert abs(metrics["ratio_actual"] - 0.15) * base.num_parameters() <= 3 * 32 * 4 + 24
    found = low_rank(model)
    assert len(found) == metrics["matrices_of_low_rank"] > 0
    weights = sum(each.left.weight.numel() + each.right.weight.numel() for each in found)
    assert weights < sum(each.in_features * each.out_features for each in found)
    shape = shape_of(model.config.to_dict() | {"per_layer_config": {}})
    assert parameters(shape) == model.num_parameters() == metrics["parameters"]
    assert count_macs(model, 16) == exact_macs(shape, 16)
    options = {"max_new_tokens": 4, "do_sample": False, "eos_token_id": None}
    assert torch.equal(model.generate(windows[:1], **options), model.generate(windows[:1], use_cache=False, **options))


@pytest.mark.parametrize(
    ("changes", "passes"),
    [
        ({"method": "svd"}, 0),
        ({}, 1),
        ({"allocation": "global"}, 2),
        ({"update": "realign"}, 2),  # the dense model's stream and the pruned one's
    ],
)
def test_how_often_the_windows_pass_a_layer(changes, passes, windows, monkeypatch):
    halves, inner = [], Activations.inner
    monkeypatch.setattr(Activations, "inner", lambda *given: (halves.append(1), inner(*given))[1])
    everywhere = {"attention_layers": [0, 3], "mlp_layers": [0, 3]}
    prune(tiny_llama(), windows, prune_params(**{"method": "svd_llm"} | everywhere | changes))
    assert len(halves) == 3 * 2 * passes


def test_nothing_to_remove_changes_nothing(windows):
    for update in ("none", "realign"):
        pruned, metrics = prune(tiny_llama(), windows, prune_params(method="svd_llm", ratio=0.0, update=update))
        assert type(pruned) is type(tiny_llama()) and metrics["ratio_actual"] == 0
        assert all(torch.equal(*pair) for pair in zip(pruned.parameters(), tiny_llama().parameters(), strict=True))


def test_a_pruned_model_can_be_cut_and_then_no_more(windows, tmp_path):
    narrow, _ = prune(tiny_llama(heads=8, kv_heads=4), windows, prune_params(method="flap", ratio=0.25))
    model, metrics = pruned_and_saved(narrow, windows, prune_params(method="svd_llm", ratio=0.3), tmp_path)
    assert model.config.per_layer_config[1].intermediate_size == Parts(model).mlp_width(model.model.layers[1]) < 24
    assert metrics["ratio_in_pruned_layers"] == pytest.approx(0.3, abs=0.02)
    for method in ("svd", "l2", "shortgpt", "magnitude"):
        with pytest.raises(UserError, match=r"low rank \(ranks in its config.json\), .* by the other"):
            prune(copy.deepcopy(model), windows, prune_params(method=method, ratio=0.34))


def test_a_model_that_lacks_an_attention_can_be_cut(windows, tmp_path):
    base = tiny_llama()
    Parts(base).skip(1, "attention")
    params = prune_params(method="svd_llm", ratio=0.3, update="realign")
    model, metrics = pruned_and_saved(rebuild(base), windows, params, tmp_path)
    assert metrics["matrices"] == 3 + 7 and [sorted(each)[:1] for each in model.config.ranks][1] == ["mlp.down_proj"]


def test_what_is_out_of_reach_or_too_little_is_said(windows, capsys):
    with pytest.raises(UserError, match=r"prune.ratio = 0.9 leaves 0 of the 10,752 weights .* less than rank 1 has"):
        prune(tiny_llama(), windows, prune_params(method="svd", ratio=0.9, ratio_of="parameters"))
    prune(tiny_llama(), windows, prune_params(method="svd_llm", ratio=0.0001))
    assert "prune.ratio = 0.0001 is too small to reduce the rank of any matrix" in capsys.readouterr().out


def test_of_a_mixture_of_experts_the_attention_alone(windows):
    params = prune_params(method="svd_llm", mlp_layers=None, ratio=0.3)
    model, _ = prune(tiny_experts("mixtral"), windows, params)
    assert len(low_rank(model)) == 8
    with pytest.raises(UserError, match=r"mlp_layers = \[1, 3\] with prune.structure = rank is not .* attention"):
        prune(tiny_experts("mixtral"), windows, prune_params(method="svd_llm"))
