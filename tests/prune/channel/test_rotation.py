"""Criterion pca and update realign of structure channel: exact without a cut, equal to naive references with one."""

import copy

import pytest
import torch
from helpers import prune_params, tiny_family, tiny_tokenizer

from stages.common.errors import UserError
from stages.models.checkpoint import load_model, save_checkpoint
from stages.models.families import FAMILIES as ARCHITECTURES
from stages.models.parts import Parts, plain_class
from stages.models.surgery import rebuild
from stages.prune.channel.criteria.pca import Pca
from stages.prune.channel.pruning import prune
from stages.prune.channel.stream import halves, keep_channels
from stages.prune.channel.update import channel_update
from stages.prune.families import check_family

ROTATED = ("llama", "mistral sliding", "qwen2", "qwen3 biased", "smollm3", "granite", "phi3")
HIDDEN = 32


def channel_params(**changes):
    return prune_params(**{"method": "channel_pca", "ratio": 0.5, **changes})


def logits(model, tokens):
    with torch.no_grad():
        return model(tokens, use_cache=False).logits


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("family", ROTATED)
def test_a_rotation_alone_changes_nothing(family, tied, windows):
    """Norms with weights of their own, embeddings so small that eps counts; with realign, what is exact stays exact."""
    model = tiny_family(family, tied=tied)
    if family == "qwen2":  # a model pruned before, whose layers differ
        Parts(model).skip(0, "mlp")
        Parts(model).skip(1, "attention")
        model = rebuild(model)
    with torch.no_grad():
        Parts(model).embeddings.weight.mul_(0.1)
    expected, before = logits(model, windows), model.num_parameters()
    basis = Pca().basis(model, windows, HIDDEN)
    for update in ("none", "realign"):
        rotated = copy.deepcopy(model)
        channel_update(update).project(rotated, basis, windows)
        rebuilt = rebuild(rotated)
        assert type(rebuilt) is type(model)
        assert rebuilt.num_parameters() == before
        torch.testing.assert_close(logits(rebuilt, windows), expected, rtol=1e-3, atol=1e-4)
    assert not torch.allclose(Parts(rotated).embeddings.weight, Parts(model).embeddings.weight, atol=1e-2) or tied


@pytest.mark.parametrize("tied", [False, True])
def test_the_components_equal_a_naive_loop(tied, windows):
    model = tiny_family("qwen3", tied=tied)
    double, read = copy.deepcopy(model).double(), []
    for name, module in double.named_modules():
        if name.endswith(("layernorm", "model.norm")):
            module.register_forward_pre_hook(lambda _, args: read.append(args[0]))
    with torch.no_grad():
        double(windows)
    assert len(read) == 7
    square = torch.zeros(HIDDEN, HIDDEN, dtype=torch.float64)
    for stream in read:
        for token in stream.flatten(0, 1):
            token = token / token.square().mean().sqrt().clamp_min(1e-9)
            square += torch.outer(token, token)
    first = torch.linalg.eigh(square).eigenvectors[:, -20:]
    basis = Pca().basis(model, windows, 20)
    torch.testing.assert_close(basis @ basis.T, first @ first.T, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(basis.T @ basis, torch.eye(20, dtype=torch.float64))
    head = basis.T @ model.model.norm.weight.double().diag() @ basis
    assert torch.allclose(head, head.diagonal().diag(), atol=1e-10) is tied


@pytest.mark.parametrize(("family", "tied"), [(family, tied) for family in ROTATED[:6] for tied in (False, True)])
def test_a_cut_equals_projecting_what_is_written(family, tied, windows):
    model = tiny_family(family, tied=tied)
    projected, basis = copy.deepcopy(model), Pca().basis(model, windows, 20)
    inside = (basis @ basis.T).float()
    with torch.no_grad():
        embeddings = Parts(projected).embeddings.weight
        embeddings.copy_(embeddings @ inside)
        for half in halves(Parts(projected)):
            half.output.weight.copy_(inside @ half.output.weight)
            if half.output.bias is not None:
                half.output.bias.copy_(inside @ half.output.bias)
    channel_update("none").project(model, basis, windows)
    torch.testing.assert_close(logits(rebuild(model), windows), logits(projected, windows), rtol=1e-3, atol=1e-4)


def ridge(read: torch.Tensor, wanted: torch.Tensor, start: torch.Tensor) -> torch.Tensor:
    """Return the W with the least |read W' - wanted|^2 + |(W - start) S|^2, S the columns' norms, by least squares."""
    weight = read.square().sum(0).sqrt().diag()
    return torch.linalg.lstsq(torch.cat([read, weight]), torch.cat([wanted, weight @ start.T])).solution.T


@pytest.mark.parametrize("tied", [False, True])
def test_realign_equals_naive_least_squares(tied, windows):
    """In a model of one layer, spelt out in float64, matrix after matrix."""
    model = tiny_family("llama", layers=1, tied=tied)
    basis = Pca().basis(model, windows, 20)
    dense, cut = copy.deepcopy(model).double(), copy.deepcopy(model)
    channel_update("realign").project(cut, basis, windows)
    cut = rebuild(cut).double()
    (layer,), (own,) = dense.model.layers, cut.model.layers
    seen: dict[str, torch.Tensor] = {}
    for which, each in (("dense", dense), ("cut", cut)):
        for name, module in each.named_modules():
            place = f"{which} {name.removeprefix('model.layers.0.')}"
            module.register_forward_hook(
                lambda _, args, out, place=place: seen.update({place: (args[0] if args else out, out)})
            )
        with torch.no_grad():
            each(windows)

    def x(place: str, which: int) -> torch.Tensor:
        return seen[place][which].flatten(0, 1)

    close = {"rtol": 1e-3, "atol": 1e-4}
    for norm, module, names in (
        ("input_layernorm", "self_attn", ("q_proj", "k_proj", "v_proj")),
        ("post_attention_layernorm", "mlp", ("gate_proj", "up_proj")),
    ):
        scale = layer.get_submodule(norm).weight
        for name in names:
            matrix, solved = (each.get_submodule(module).get_submodule(name).weight for each in (layer, own))
            wanted = x(f"dense {module}.{name}", 1)
            expected = ridge(x(f"cut {norm}", 1), wanted, matrix * scale @ basis)
            torch.testing.assert_close(solved, expected, **close)
    after = x("dense post_attention_layernorm", 0) @ basis
    wanted = after - x("cut input_layernorm", 0)
    expected = ridge(x("cut self_attn.o_proj", 0), wanted, basis.T @ layer.self_attn.o_proj.weight)
    torch.testing.assert_close(own.self_attn.o_proj.weight, expected, **close)
    wanted = x("dense model.norm", 0) @ basis - x("cut post_attention_layernorm", 0)
    expected = ridge(x("cut mlp.down_proj", 0), wanted, basis.T @ layer.mlp.down_proj.weight)
    torch.testing.assert_close(own.mlp.down_proj.weight, expected, **close)
    if not tied:
        start = dense.lm_head.weight * dense.model.norm.weight @ basis
        expected = ridge(x("cut model.norm", 1), x("dense lm_head", 1), start)
        torch.testing.assert_close(cut.lm_head.weight, expected, **close)


def low_rank_model(windows):
    """Return a Llama whose stream lies in 16 of 32 directions, none of them a channel, and its logits."""
    model = tiny_family("llama", seed=3)
    with torch.no_grad():
        model.model.embed_tokens.weight[:, 16:] = 0
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight[16:] = 0
            layer.mlp.down_proj.weight[16:] = 0
    rotation = torch.linalg.qr(torch.randn(HIDDEN, HIDDEN, dtype=torch.float64)).Q
    channel_update("none").project(model, rotation, windows)
    model = rebuild(model)
    return model, logits(model, windows)


@pytest.mark.parametrize("update", ["none", "realign"])
def test_directions_that_nothing_writes_to_go_first_and_change_nothing(update, windows):
    torch.manual_seed(0)
    model, expected = low_rank_model(windows)
    pruned, metrics = prune(copy.deepcopy(model), windows, channel_params(update=update))
    assert metrics["hidden_size"] == 16
    torch.testing.assert_close(logits(pruned, windows), expected, rtol=1e-3, atol=1e-3)
    taylor, _ = prune(copy.deepcopy(model), windows, channel_params(method="channel_taylor", update=update))
    assert (logits(taylor, windows) - expected).abs().mean() > 0.1 * expected.abs().mean()


@pytest.mark.parametrize("method", ["channel_taylor", "channel_pca"])
def test_realign_brings_the_model_nearer_to_the_dense_one(method, windows):
    model = tiny_family("llama", tied=True)
    expected = torch.log_softmax(logits(model, windows), -1)

    def divergence(update):
        pruned, _ = prune(copy.deepcopy(model), windows, channel_params(method=method, update=update, ratio=0.3))
        found = torch.log_softmax(logits(pruned, windows), -1)
        return (expected.exp() * (expected - found)).sum(-1).mean()

    assert divergence("realign") < divergence("none")


@pytest.mark.parametrize(("family", "tied"), [("llama", True), ("qwen3", False), ("granite", True)])
@pytest.mark.parametrize("method", ["channel_pca", "channel_realign"])
def test_a_checkpoint_loads_as_it_was_saved(family, tied, method, windows, tmp_path):
    model, key = tiny_family(family, tied=tied), ARCHITECTURES[family].norm.eps_key
    eps = getattr(model.config, key)
    pruned, metrics = prune(model, windows, channel_params(method=method, iterative_steps=2))
    save_checkpoint(pruned, tiny_tokenizer(), tmp_path)
    loaded = load_model(tmp_path)
    assert type(loaded) is plain_class(ARCHITECTURES[family])
    assert metrics["hidden_size"] == loaded.config.hidden_size == 16
    assert getattr(loaded.config, key) == pytest.approx(eps * HIDDEN / 16)
    assert loaded.num_parameters() == metrics["parameters"]
    assert torch.equal(logits(loaded, windows), logits(pruned, windows))


@pytest.mark.parametrize("method", ["channel_pca", "channel_realign"])
def test_ratio_zero_leaves_every_weight(method, windows):
    model = tiny_family("llama", tied=True)
    expected = {key: value.clone() for key, value in model.state_dict().items()}
    pruned, _ = prune(model, windows, channel_params(method=method, ratio=0))
    assert all(torch.equal(value, expected[key]) for key, value in pruned.state_dict().items())


def test_realign_of_channels_that_nothing_writes_to_removes_them_alone(windows):
    model, keep = tiny_family("llama", tied=True), torch.arange(20)
    with torch.no_grad():
        model.model.embed_tokens.weight[:, 20:] = 0
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight[20:] = 0
            layer.mlp.down_proj.weight[20:] = 0
    cut = copy.deepcopy(model)
    keep_channels(cut, keep)
    channel_update("realign").project(model, torch.eye(HIDDEN, dtype=torch.float64)[:, keep], windows)
    torch.testing.assert_close(logits(rebuild(model), windows), logits(rebuild(cut), windows), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("method", ["channel_pca", "channel_realign"])
@pytest.mark.parametrize("case", ["one token", "constant", "bfloat16"])
def test_degenerate_calibration_or_precision_gives_a_finite_model(method, case):
    windows = torch.zeros(1, 2, dtype=torch.int64) if case == "one token" else torch.full((4, 16), 5)
    model = tiny_family("qwen2", tied=True)
    pruned, _ = prune(model.bfloat16() if case == "bfloat16" else model, windows, channel_params(method=method))
    assert pruned.dtype is (torch.bfloat16 if case == "bfloat16" else torch.float32)
    assert all(torch.isfinite(each).all() for each in [*pruned.parameters(), logits(pruned, windows)])


@pytest.mark.parametrize(
    ("changes", "family", "named"),
    [
        (
            {"method": "channel_pca"},
            "gemma2",
            r"prune.criterion = pca is not allowed .*'gemma2'.*: activation_norm, flap",
        ),
        (
            {"method": "channel_taylor", "update": "realign"},
            "olmo2",
            r"prune.update = realign .*'olmo2'.*one of: none$",
        ),
        ({"method": "channel_pca"}, "cohere", r"prune.structure = channel is not allowed .*'cohere'"),
        ({"method": "channel_realign"}, "mixtral", r"prune.structure = channel is not allowed .*'mixtral'"),
    ],
)
def test_families_that_cannot_be_rotated_are_refused_by_name(changes, family, named):
    with pytest.raises(UserError, match=named):
        check_family(channel_params(**changes), family)
