"""Whole experts: removing them equals never choosing them, and every criterion equals a plain loop over tokens."""

import pytest
import torch
import torch.nn.functional as F
from helpers import EXPERTS, prune_params, pruned_and_saved, tiny_experts, tiny_family, tiny_tokenizer
from pydantic import ValidationError
from transformers import AutoModelForCausalLM

from analysis.arithmetic import exact_macs, linear_weights, parameters, shape_of
from stages.common.errors import UserError
from stages.models.checkpoint import load_model, save_checkpoint
from stages.models.families import FAMILIES as ARCHITECTURES
from stages.models.parts import Parts, plain_class, pruned_class
from stages.models.surgery import rebuild
from stages.profile.macs import count_macs
from stages.profile.memory import parameter_counts
from stages.prune.__main__ import layer_sizes
from stages.prune.expert.criteria import criterion
from stages.prune.expert.pruning import keep_experts
from stages.prune.pruning import prune

KEPT = [[0, 2, 3, 5], [1, 2, 3, 4], [0, 1, 4, 5]]  # by layer
LAYERS = [0, 1, 2]


def params(**changes):
    return prune_params(**{"method": "reap", "attention_layers": None, "mlp_layers": "auto"} | changes)


def logits(model, tokens):
    with torch.no_grad():
        return model(tokens, use_cache=False).logits


def mixtures(model):
    return [layer.mlp for layer in model.model.layers]


def experts_of(model) -> list[int]:
    return [len(mixture.experts.down_proj) for mixture in mixtures(model)]


def kind_of(family: str):
    return ARCHITECTURES[family.split()[0]]


def route(router, x, gone=()):
    """Return the weights and the experts that a router gives tokens x, with the logits of `gone` at minus infinity."""
    scores = x @ router.weight.T
    scores[:, list(gone)] = -torch.inf
    weights, chosen = scores.softmax(-1).topk(router.top_k)
    if getattr(router, "norm_topk_prob", True):  # Mixtral knows no other
        weights = weights / weights.sum(-1, keepdim=True)
    return scores, weights, chosen


@pytest.mark.parametrize("family", EXPERTS)
def test_removing_experts_equals_never_choosing_them(family, windows, monkeypatch):
    model, dense = (tiny_experts(family) for _ in range(2))
    for mixture, masked, kept in zip(map(Parts(model).mixture, model.model.layers), mixtures(dense), KEPT, strict=True):
        keep_experts(mixture, torch.tensor(kept))
        gone = set(range(6)) - set(kept)
        monkeypatch.setattr(masked.gate, "forward", lambda x, gate=masked.gate, gone=gone: route(gate, x, gone))
    torch.testing.assert_close(logits(rebuild(model), windows), logits(dense, windows), rtol=1e-5, atol=1e-5)


def read_by_mixtures(model, windows) -> list[torch.Tensor]:
    """Return the tokens that each layer's mixture reads."""
    found: list[torch.Tensor] = []
    hooks = [
        mixture.register_forward_pre_hook(lambda _, args: found.append(args[0].flatten(0, 1)))
        for mixture in mixtures(model)
    ]
    logits(model, windows)
    for hook in hooks:
        hook.remove()
    return found


def expert_output(mixture, expert, x):
    gate, up = mixture.experts.gate_up_proj[expert].chunk(2)
    return mixture.experts.down_proj[expert] @ (F.silu(gate @ x) * (up @ x))


@pytest.mark.parametrize("family", EXPERTS)
def test_criteria_of_routed_tokens_equal_a_loop_over_tokens(family, windows):
    model = tiny_experts(family)
    found = {name: criterion(name).score(model, LAYERS, windows, params()) for name in ("reap", "frequency")}
    for layer, (mixture, tokens) in enumerate(zip(mixtures(model), read_by_mixtures(model, windows), strict=True)):
        sums, counts = [0.0] * 6, [0] * 6
        with torch.no_grad():
            for x in tokens:
                _, weights, chosen = route(mixture.gate, x[None])
                for weight, expert in zip(weights[0].tolist(), chosen[0].tolist(), strict=True):
                    sums[expert] += weight * expert_output(mixture, expert, x).norm().item()
                    counts[expert] += 1
        means = [total / max(1, count) for total, count in zip(sums, counts, strict=True)]
        assert found["reap"][layer].tolist() == pytest.approx(means, rel=1e-4)
        assert found["frequency"][layer].tolist() == [count / windows.numel() for count in counts]


@pytest.mark.parametrize("variant", ["param_first", "param_second", "param_mix", "vectorize"])
def test_taylor_equals_autograd(variant, windows):
    model = tiny_experts("qwen3_moe")
    found = criterion("taylor").score(model, LAYERS, windows, params(method="expert_taylor", taylor=variant))
    model.requires_grad_(True)
    weights = [[m.experts.gate_up_proj, m.experts.down_proj] for m in mixtures(model)]
    flat = [tensor for pair in weights for tensor in pair]

    def slopes(tokens):
        return torch.autograd.grad(model(tokens, labels=tokens).loss, flat, allow_unused=True, materialize_grads=True)

    firsts = slopes(windows)
    singles = [slopes(window[None]) for window in windows]
    for i, (w, g) in enumerate(zip(flat, firsts, strict=True)):
        h = torch.stack([single[i].square() for single in singles]).mean(0)
        terms = {"param_second": w * h * w, "param_mix": w * g - 0.5 * w * h * w}.get(variant, w * g)
        terms = terms if variant == "vectorize" else terms.abs()
        flat[i] = terms.detach().flatten(1).sum(1)
    for layer, score in enumerate(found):
        expected = (flat[2 * layer] + flat[2 * layer + 1]).abs().double()
        torch.testing.assert_close(score, expected, rtol=1e-3, atol=1e-7)


def test_weights_and_chance(windows):
    model = tiny_experts("mixtral")
    (l2, *_) = criterion("l2").score(model, LAYERS, windows, params(method="expert_l2"))
    first = mixtures(model)[0].experts
    expected = [(first.gate_up_proj[i].square().sum() + first.down_proj[i].square().sum()).item() for i in range(6)]
    assert l2.tolist() == pytest.approx(expected)
    drawn = [criterion("random").score(model, LAYERS, windows, params(seed=seed)) for seed in (0, 0, 1)]
    assert all(torch.equal(a, b) for a, b in zip(drawn[0], drawn[1], strict=True))
    assert not torch.equal(drawn[0][0], drawn[2][0]) and not torch.equal(drawn[0][0], drawn[0][1])


@pytest.mark.parametrize("everywhere", [True, False])
@pytest.mark.parametrize("family", EXPERTS)
def test_what_is_left_is_saved_loaded_and_counted(family, everywhere, windows, tmp_path):
    """Uniform: the plain class, which transformers loads; else the pruned class. Streaming gives the same."""
    settings = params(ratio=0.3, mlp_layers="auto" if everywhere else [1, 3])
    model, metrics = pruned_and_saved(tiny_experts(family), windows, settings, tmp_path)
    assert [each["experts"] for each in layer_sizes(model)] == ([4, 4, 4] if everywhere else [6, 4, 4])
    assert type(model) is (plain_class if everywhere else pruned_class)(kind_of(family))
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "one", trust_remote_code=not everywhere)
    assert torch.equal(logits(theirs, windows), logits(model, windows))

    shape = shape_of(model.config.to_dict())
    counts = parameter_counts(model)
    assert counts["parameters"] == parameters(shape) == metrics["parameters"] == metrics["parameters_nonzero"] + 32
    idle = linear_weights(shape) - linear_weights(shape, of_a_token=True)
    assert idle == sum(3 * 32 * 12 * (experts - 2) for experts in experts_of(model))
    assert counts["active_parameters"] == metrics["active_parameters"] == parameters(shape) - idle
    assert metrics["active_parameters_before"] - metrics["active_parameters"] == 32 * (18 - metrics["experts"])
    assert count_macs(model, 16) == exact_macs(shape, 16)


def test_the_lowest_scores_go_and_their_router_rows_with_them(windows):
    model = tiny_experts("qwen3_moe")
    scores = criterion("reap").score(model, LAYERS, windows, params())
    rows = [mixture.gate.weight.clone() for mixture in mixtures(model)]
    pruned, _ = prune(model, windows, params(ratio=0.3))
    for mixture, score, weight in zip(mixtures(pruned), scores, rows, strict=True):
        kept = score.argsort()[2:].sort().values
        assert torch.equal(mixture.gate.weight, weight[kept])


@pytest.mark.parametrize(
    ("changes", "left"),
    [
        ({"ratio": 0.0}, [6, 6, 6]),
        ({"ratio": 0.2}, [4, 4, 4]),  # int(6 * 0.8) stay
        ({"ratio": 0.5}, [3, 3, 3]),
        ({"ratio": 0.5, "iterative_steps": 3}, [3, 3, 3]),
        ({"ratio": 0.5, "mlp_layers": [2, 3]}, [6, 6, 3]),
        ({"ratio": 0.1, "ratio_of": "parameters"}, [5, 5, 5]),  # 2.9 experts
        ({"ratio": 0.25, "ratio_of": "parameters"}, [4, 4, 4]),  # 7.4 experts
    ],
)
def test_how_many_experts_go(changes, left, windows):
    pruned, metrics = prune(tiny_experts("qwen3_moe"), windows, params(**changes))
    assert experts_of(pruned) == left
    assert metrics["experts"] == sum(left)
    assert metrics["ratio_actual"] == pytest.approx(
        (18 - sum(left)) * (3 * 32 * 12 + 32) / metrics["parameters_before"]
    )


@pytest.mark.parametrize(("ratio", "ratio_of", "gone"), [(0.5, "groups", 9), (0.25, "parameters", 7)])
def test_global_takes_the_lowest_relative_scores_of_all_layers(ratio, ratio_of, gone, windows):
    model = tiny_experts("mixtral")
    scores = criterion("l2").score(model, LAYERS, windows, params())
    keys = sorted(
        (value / score.mean().item(), layer) for layer, score in enumerate(scores) for value in score.tolist()
    )
    expected = [6 - sum(layer == each for _, each in keys[:gone]) for layer in LAYERS]
    assert min(expected) >= 2
    pruned, metrics = prune(
        model, windows, params(method="expert_l2", allocation="global", ratio=ratio, ratio_of=ratio_of)
    )
    assert experts_of(pruned) == expected and metrics["experts"] == 18 - gone
    assert pruned.config.output_router_logits is False


@pytest.mark.parametrize("allocation", ["uniform", "global"])
def test_fewer_experts_than_the_router_chooses_are_refused(allocation, windows):
    with pytest.raises(UserError, match=r"prune.ratio = 0.9 would leave \d experts in layer \d; expected .* = 2"):
        prune(tiny_experts("olmoe"), windows, params(ratio=0.9, allocation=allocation))
    pruned, _ = prune(tiny_experts("olmoe"), windows, params(ratio=2 / 3, allocation=allocation))
    assert experts_of(pruned) == [2, 2, 2]


def test_a_ratio_too_small_for_one_expert_is_said(windows, capsys):
    prune(tiny_experts("olmoe"), windows, params(ratio=0.01, ratio_of="parameters"))
    assert "prune.ratio = 0.01 removes no expert" in capsys.readouterr().out


def test_the_attention_is_pruned_as_in_dense_models(windows, tmp_path):
    for update in ("none", "refit", "realign"):
        changes = {"criterion": "wanda_sp", "update": update, "mlp_layers": None, "attention_layers": [0, 3]}
        pruned, _ = prune(tiny_experts("qwen3_moe"), windows, prune_params(**changes))
        assert [each["num_key_value_heads"] for each in Parts(pruned).widths] == [1, 1, 1]
        save_checkpoint(pruned, tiny_tokenizer(), tmp_path / update)
        assert torch.equal(logits(load_model(tmp_path / update), windows), logits(pruned, windows))
    left = prune(tiny_experts("mixtral"), windows, prune_params(method="shortgpt", ratio=0.4))[0]
    assert len(left.model.layers) == 2
    sparse = prune(tiny_experts("olmoe"), windows, prune_params(method="sparsegpt", mlp_layers=None))[0]
    assert (sparse.model.layers[1].self_attn.q_proj.weight == 0).double().mean() == 0.5


def test_a_budget_counts_the_experts_of_a_token(windows):
    model = tiny_experts("qwen3_moe")
    macs = count_macs(model, 16)
    changes = {"mlp_layers": None, "attention_layers": [0, 3], "budget_length": 16, "method": "l2"}
    pruned, metrics = prune(model, windows, prune_params(budget=f"{macs / 1e6 - 0.05} MMACs", **changes))
    assert metrics["budget_before"] * 1e6 == macs
    assert count_macs(pruned, 16) == metrics["budget_actual"] * 1e6


@pytest.mark.parametrize(
    ("family", "changes", "message"),
    [
        ("llama", {"method": "reap"}, "structure = expert is not .* has no experts; expected one of: block, .*mixtral"),
        ("qwen3_moe", {"method": "channel_l2"}, "structure = channel is not .* expected one of: block, expert, layer"),
        ("qwen3_moe", {"method": "l2"}, "layer 1 mlp, expert 0 has 4 channels; expected at least 8"),
        ("qwen3_moe", {"method": "best"}, r"update = realign with prune.mlp_layers = \[1, 3\] is not .* none, refit"),
        ("mixtral", {"method": "wanda"}, r"mlp_layers = \[1, 3\] with prune.structure = weight .* expected null"),
        ("mixtral", {"method": "flap", "mlp_layers": None}, "update = bias is not .* one of: none, realign, refit"),
        ("olmoe", {"method": "l2"}, r"attention_layers = \[1, 3\] with prune.structure = block .* expected null"),
        ("olmoe", {"method": "layer_taylor"}, "criterion = taylor of .* expected one of: first, influence, last"),
    ],
)
def test_what_a_family_cannot_have_pruned_is_refused_by_name(family, changes, message, windows):
    model = tiny_family(family) if family == "llama" else tiny_experts(family, width=4)
    with pytest.raises(UserError, match=message) as raised:
        prune(model, windows, prune_params(**changes))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mlp_layers": None, "attention_layers": [0, 3]}, "mlp_layers = null does not go with structure = expert"),
        ({"layout": "uniform"}, "layout = uniform does not go with structure = expert; .*free"),
        ({"budget": "1 GiB"}, "budget = 1 GiB does not go with structure = expert; .*null"),
        ({"criterion": "obs"}, "criterion = obs does not go with structure = expert; .*frequency, l2, random,"),
        ({"method": "expert_taylor", "streaming": True}, "streaming = true does not go with criterion = taylor"),
    ],
)
def test_keys_that_do_not_go_together(changes, message):
    with pytest.raises(ValidationError, match=message):
        params(**changes)
