"""Structure channel: removing equals zeroing, scores equal naive loops, budgets are met."""

import copy

import pytest
import torch
from helpers import FAMILIES, LIMITS, prune_params, tiny_family, tiny_tokenizer
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from stages.common.errors import UserError
from stages.models.checkpoint import load_model, save_checkpoint
from stages.models.families import FAMILIES as ARCHITECTURES
from stages.models.parts import Parts, plain_class, pruned_class
from stages.models.surgery import rebuild
from stages.prune.block.pruning import prune as prune_blocks
from stages.prune.channel import CHANNEL, DIRECTIONS
from stages.prune.channel.pruning import channels_left, prune, scores
from stages.prune.channel.stream import halves, keep_channels, stream
from stages.prune.gradients import gradients

CHANNELED = [name for name in FAMILIES if "channel" not in LIMITS[name.split()[0]]]
CRITERIA = [name for name in CHANNEL.takes["criterion"] if name not in DIRECTIONS]


def channel_params(**changes):
    return prune_params(**{"method": "channel_l2", "attention_layers": [0, 3], "mlp_layers": [0, 3], **changes})


def logits(model, tokens):
    with torch.no_grad():
        return model(tokens, use_cache=False).logits


def silence(model, gone: list[int]) -> None:
    """Zero what every layer and the embeddings write to the channels `gone`; nothing reads them then."""
    outputs = [half.output for half in halves(Parts(model))]
    with torch.no_grad():
        head = model.lm_head.weight.clone()
        Parts(model).embeddings.weight[:, gone] = 0
        for linear in outputs:
            linear.weight[gone] = 0
            if linear.bias is not None:
                linear.bias[gone] = 0
        if not model.config.tie_word_embeddings:
            assert torch.equal(model.lm_head.weight, head)


@settings(max_examples=30, deadline=None)
@given(
    family=st.sampled_from(CHANNELED),
    tied=st.booleans(),
    bias=st.booleans(),
    seed=st.integers(0, 1000),
    data=st.data(),
)
@pytest.mark.slow
def test_removing_channels_equals_zeroing_them(family, tied, bias, seed, data):
    """The embeddings are as small as real ones, so that the norms' eps counts."""
    model = tiny_family(family, tied=tied, seed=seed)
    tokens = torch.randint(0, 64, (2, 9), generator=torch.Generator().manual_seed(seed))
    if bias:
        model, _ = prune_blocks(model, tokens, prune_params(criterion="flap", update="bias", ratio=0.3))
    with torch.no_grad():
        Parts(model).embeddings.weight.mul_(0.01)
    dense = copy.deepcopy(model)
    gone = data.draw(st.lists(st.integers(0, 31), max_size=31, unique=True))
    silence(dense, gone)
    keep_channels(model, torch.tensor([channel for channel in range(32) if channel not in gone]))
    torch.testing.assert_close(logits(rebuild(model), tokens), logits(dense, tokens), rtol=2e-3, atol=1e-4)


@pytest.mark.parametrize("criterion", CRITERIA)
@pytest.mark.parametrize(("family", "tied"), [("llama", False), ("qwen3", True), ("olmo2", False), ("gemma2", True)])
def test_every_architecture_and_criterion_gives_a_checkpoint_that_loads(family, criterion, tied, windows, tmp_path):
    pruned, metrics = prune(tiny_family(family, tied=tied), windows, channel_params(criterion=criterion))
    save_checkpoint(pruned, tiny_tokenizer(), tmp_path)
    loaded = load_model(tmp_path)
    assert type(loaded) is plain_class(ARCHITECTURES[family.split()[0]])  # 16 channels are a multiple of 4 heads
    assert (loaded.config.hidden_size, loaded.config.head_dim) == (16, 8)
    assert metrics["hidden_size"] == 16
    assert loaded.num_parameters() == metrics["parameters"] < metrics["parameters_before"]
    assert torch.isfinite(logits(loaded, windows)).all()
    assert torch.equal(logits(loaded, windows), logits(pruned, windows))
    options = {"max_new_tokens": 5, "do_sample": False, "eos_token_id": None}
    cached = loaded.generate(windows[:1], **options)
    assert torch.equal(cached, loaded.generate(windows[:1], use_cache=False, **options))


def test_a_hidden_size_that_the_heads_do_not_divide_is_a_pruned_llama(windows, tmp_path):
    pruned, _ = prune(tiny_family("llama"), windows, channel_params(ratio=0.45))
    assert pruned.config.hidden_size == 17
    save_checkpoint(pruned, tiny_tokenizer(), tmp_path)
    assert type(load_model(tmp_path)) is pruned_class(ARCHITECTURES["llama"])
    assert torch.equal(logits(load_model(tmp_path), windows), logits(pruned, windows))


@settings(max_examples=25, deadline=None)
@given(family=st.sampled_from(CHANNELED), ratio=st.floats(0, 0.9), steps=st.integers(1, 3), tied=st.booleans())
def test_ratio_of_parameters_is_met_to_within_one_channel(family, ratio, steps, tied):
    model = tiny_family(family, tied=tied)
    cost, tokens = stream(model).cost, torch.zeros(1, 4, dtype=torch.int64)
    pruned, metrics = prune(model, tokens, channel_params(ratio=ratio, ratio_of="parameters", iterative_steps=steps))
    removed = metrics["parameters_before"] - metrics["parameters"]
    assert abs(removed - ratio * metrics["parameters_before"]) <= cost / 2 + 1
    assert removed == (32 - metrics["hidden_size"]) * cost
    assert pruned.num_parameters() == metrics["parameters"]


@pytest.mark.parametrize(("ratio", "round_to", "left"), [(0.3, 1, 22), (0.3, 8, 24), (0.7, 8, 8), (0.5, 1, 16)])
def test_ratio_of_groups_is_the_share_of_channels(ratio, round_to, left):
    assert channels_left(stream(tiny_family("llama")), 0, ratio, channel_params(round_to=round_to)) == left


@pytest.mark.parametrize("ratio_of", ["groups", "parameters"])
def test_a_ratio_that_leaves_no_channel_is_refused(ratio_of, windows):
    with pytest.raises(UserError, match=r"prune.ratio = 0.99"):
        prune(tiny_family("qwen2"), windows, channel_params(ratio=0.99, ratio_of=ratio_of))


def test_rounding_to_more_channels_than_there_are_is_refused(windows):
    with pytest.raises(UserError, match=r"prune.round_to = 64 would leave 0 of the 32 channels"):
        prune(tiny_family("llama"), windows, channel_params(round_to=64))


def test_ratio_zero_is_the_identity(windows):
    model = tiny_family("qwen3", tied=True)
    expected = {key: value.clone() for key, value in model.state_dict().items()}
    pruned, metrics = prune(model, windows, channel_params(ratio=0))
    assert metrics["ratio_actual"] == 0
    assert pruned.config.rms_norm_eps == 1e-6
    assert all(torch.equal(value, expected[key]) for key, value in pruned.state_dict().items())


def crossings(model, channel: int) -> list:
    """Return (matrix, index) of everything that a channel crosses, spelt out."""
    found = [(model.model.embed_tokens, (slice(None), channel))]
    for layer in model.model.layers:
        heads, mlp = layer.self_attn, layer.mlp
        found += [(each, (slice(None), channel)) for each in (heads.q_proj, heads.k_proj, heads.v_proj)]
        found += [(each, (slice(None), channel)) for each in (mlp.gate_proj, mlp.up_proj)]
        found += [(each, (channel, slice(None))) for each in (heads.o_proj, mlp.down_proj)]
    return found if model.config.tie_word_embeddings else [*found, (model.lm_head, (slice(None), channel))]


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("criterion", ["l1", "l2", "taylor"])
def test_scores_of_weights_equal_a_naive_loop(criterion, tied, windows):
    model = tiny_family("qwen2", tied=tied)
    got = scores(model, stream(model), windows, channel_params(criterion=criterion))
    double = copy.deepcopy(model).double()
    loss = double(windows, labels=windows).loss
    loss.backward()
    value = {
        "l1": lambda w, g: w.abs(), "l2": lambda w, g: w.square(), "taylor": lambda w, g: (w * g).abs(),
    }[criterion]  # fmt: skip
    expected = [
        sum(value(each.weight[at], each.weight.grad[at]).sum().item() for each, at in crossings(double, channel))
        for channel in range(32)
    ]
    torch.testing.assert_close(got, torch.tensor(expected, dtype=torch.float64), rtol=2e-3, atol=1e-6)


@pytest.mark.parametrize("criterion", ["activation_norm", "wanda_sp", "flap"])
def test_scores_of_activations_equal_a_naive_loop(criterion, windows):
    model = tiny_family("mistral")
    got = scores(model, stream(model), windows, channel_params(criterion=criterion))
    double, seen = copy.deepcopy(model).double(), {}
    for name, module in double.named_modules():
        module.register_forward_hook(lambda _, args, out, name=name: seen.update({name: out}))
    with torch.no_grad():
        double(windows)
    pairs = [("model.norm", [double.lm_head.weight])]
    for i, layer in enumerate(double.model.layers):
        heads, mlp = layer.self_attn, layer.mlp
        reading = [heads.q_proj.weight, heads.k_proj.weight, heads.v_proj.weight]
        pairs.append((f"model.layers.{i}.input_layernorm", reading))
        pairs.append((f"model.layers.{i}.post_attention_layernorm", [mlp.gate_proj.weight, mlp.up_proj.weight]))
    expected = torch.zeros(32, dtype=torch.float64)
    for name, weights in pairs:
        x = seen[name].flatten(0, 1)
        rms = x.square().mean(0).sqrt()
        expected += {
            "activation_norm": rms,
            "wanda_sp": sum(w.abs().sum(0) for w in weights) * rms,
            "flap": sum(w.square().sum(0) for w in weights) * x.var(0, correction=0),
        }[criterion]
    torch.testing.assert_close(got, expected.detach(), rtol=1e-3, atol=1e-6)


def test_a_channel_that_nothing_writes_to_goes_first_and_changes_nothing(windows):
    model = tiny_family("qwen3", tied=True)
    silence(model, [3, 17])
    expected = logits(model, windows)
    for criterion in ("taylor", "activation_norm"):
        pruned, _ = prune(copy.deepcopy(model), windows, channel_params(criterion=criterion, ratio=2 / 32))
        torch.testing.assert_close(logits(pruned, windows), expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("case", ["one token", "constant", "dead"])
@pytest.mark.parametrize("criterion", CRITERIA)
def test_degenerate_calibration_gives_a_finite_model(criterion, case):
    windows = torch.zeros(1, 2, dtype=torch.int64) if case == "one token" else torch.full((4, 16), 5)
    model = tiny_family("qwen2")
    if case == "dead":
        silence(model, list(range(20)))
    pruned, metrics = prune(model, windows, channel_params(criterion=criterion))
    assert metrics["hidden_size"] == 16
    assert all(torch.isfinite(each).all() for each in [*pruned.parameters(), logits(pruned, windows)])


@pytest.mark.parametrize("criterion", ["activation_norm", "pca"])
def test_activations_that_are_not_finite_are_refused(criterion, windows):
    model = tiny_family("llama")
    with torch.no_grad():
        model.model.embed_tokens.weight.fill_(float("nan"))
    with pytest.raises(UserError, match="calibration activations are not finite"):
        prune(model, windows, channel_params(criterion=criterion))


def test_channels_then_blocks(windows):
    """What is left is a model like any other: it can be pruned again, by blocks."""
    narrow, _ = prune(tiny_family("qwen3"), windows, channel_params(ratio=0.25))
    pruned, _ = prune_blocks(narrow, windows, prune_params(method="best"))
    assert pruned.config.hidden_size == 24
    assert torch.isfinite(logits(pruned, windows)).all()


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        (
            {"criterion": "obs"},
            "criterion = obs does not go with structure = channel; expected one of: activation_norm, flap",
        ),
        (
            {"allocation": "global"},
            "allocation = global does not go with structure = channel; expected one of: uniform",
        ),
        ({"update": "refit"}, "update = refit does not go with structure = channel; expected one of: none, realign"),
        ({"layout": "uniform"}, "layout = uniform does not go with structure = channel; expected free"),
        (
            {"grouping": "prod"},
            "grouping = prod does not go with structure = channel; expected one of: sum, mean, max, first",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(changes, named):
    with pytest.raises(ValidationError, match=named):
        channel_params(**changes)


def test_gradients_reach_the_embeddings(windows):
    """The criterion's own path: one gradient for each matrix, that of a tied head and the embeddings together."""
    model, found = tiny_family("llama", tied=True), {}
    weights = [matrix.weight for matrix, _ in stream(model).matrices]
    gradients(model, windows, weights, lambda weight, gradient, _: found.update({weight: gradient}), False)
    assert set(found) == set(weights)
    assert all(gradient.abs().sum() > 0 for gradient in found.values())
