"""Channels inside experts: each expert its own, all experts of a layer as many; criteria equal a plain loop."""

import pytest
import torch
import torch.nn.functional as F
from helpers import EXPERTS, prune_params, pruned_and_saved, tiny_experts
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM

from analysis.arithmetic import exact_macs, linear_weights, parameters, shape_of
from stages.common.errors import UserError
from stages.models.families import FAMILIES as ARCHITECTURES
from stages.models.parts import Parts, plain_class, pruned_class
from stages.models.prunable import block_modules
from stages.models.surgery import keep_units, rebuild
from stages.profile.macs import count_macs
from stages.profile.memory import parameter_counts
from stages.prune.activations import Activations
from stages.prune.block import BLOCK
from stages.prune.block.allocation import fisher, search, sensitivity
from stages.prune.block.criteria.obs import removal_errors
from stages.prune.block.update import update
from stages.prune.criteria import score_units
from stages.prune.inputs import DAMPING
from stages.prune.pruning import prune


def params(**changes):
    return prune_params(**{"attention_layers": None, "mlp_layers": "auto"} | changes)


def mixture_of(family, seed=0):
    return tiny_experts(family, width=24, seed=seed)


def logits(model, tokens):
    with torch.no_grad():
        return model(tokens, use_cache=False).logits


def widths(model) -> list[int]:
    return [Parts(model).mlp_width(layer) for layer in model.model.layers]


@settings(max_examples=20, deadline=None)
@given(family=st.sampled_from(sorted(EXPERTS)), seed=st.integers(0, 1000), data=st.data())
def test_removing_channels_of_experts_equals_zeroing_them(family, seed, data):
    model, dense = (mixture_of(family, seed=seed) for _ in range(2))
    left = {1: data.draw(st.sampled_from([8, 16])), 2: data.draw(st.sampled_from([8, 16]))}
    for module in block_modules(model, [], left):
        kept = sorted(data.draw(st.permutations(range(24)))[: left[module.layer]])
        gone = [channel for channel in range(24) if channel not in kept]
        with torch.no_grad():
            dense.model.layers[module.layer].mlp.experts.down_proj[module.expert][:, gone] = 0
        keep_units(module, torch.tensor(kept))
    assert widths(model) == [24, left[1], left[2]]
    tokens = torch.randint(0, 64, (2, 9), generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(logits(rebuild(model), tokens), logits(dense, tokens), rtol=1e-4, atol=1e-4)


def routed(model, layer: int, windows) -> list[torch.Tensor]:
    """Return what each expert's down matrix reads times the router's weight, token by token, (tokens, 24) each."""
    mixture, found = model.model.layers[layer].mlp, []
    hook = mixture.register_forward_pre_hook(lambda _, args: found.append(args[0].flatten(0, 1)))
    logits(model, windows)
    hook.remove()
    rows: list[list[torch.Tensor]] = [[] for _ in range(6)]
    with torch.no_grad():
        for x in found[0]:
            probabilities = (mixture.gate.weight @ x).softmax(0)
            weights, chosen = probabilities.topk(2)
            if getattr(mixture.gate, "norm_topk_prob", True):
                weights = weights / weights.sum()
            for weight, expert in zip(weights, chosen.tolist(), strict=True):
                gate, up = mixture.experts.gate_up_proj[expert].chunk(2)
                rows[expert].append(weight * F.silu(gate @ x) * (up @ x))
    return [torch.stack(each) if each else torch.zeros(1, 24) for each in rows]


@pytest.mark.parametrize("family", EXPERTS)
def test_criteria_equal_a_loop_over_tokens(family, windows):
    model, own = mixture_of(family), params(grouping="sum")
    names = ("wanda_sp", "flap", "activation_norm", "obs", "l1", "l2")
    scores = {name: score_units(name, model, block_modules(model, [], [1]), windows, own) for name in names}
    experts = model.model.layers[1].mlp.experts
    for expert, rows in enumerate(routed(model, 1, windows)):
        x, down = rows.double(), experts.down_proj[expert].detach().double()
        gate, up = experts.gate_up_proj[expert].detach().double().chunk(2)
        hessian = x.T @ x / len(x)
        hessian += torch.eye(24) * (DAMPING * hessian.diagonal().mean() or 1.0)
        expected = {
            "wanda_sp": down.abs().sum(0) * x.square().mean(0).sqrt(),
            "flap": down.square().sum(0) * x.var(0, correction=0),
            "activation_norm": x.square().mean(0).sqrt(),
            "obs": removal_errors(down, hessian, 24),
            "l1": gate.abs().sum(1) + up.abs().sum(1) + down.abs().sum(0),
            "l2": gate.square().sum(1) + up.square().sum(1) + down.square().sum(0),
        }
        for name, wanted in expected.items():
            torch.testing.assert_close(scores[name][expert], wanted, rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize("variant", ["param_first", "param_mix", "vectorize"])
def test_taylor_equals_autograd(variant, windows):
    model = mixture_of("qwen3_moe")
    found = score_units("taylor", model, block_modules(model, [], [1, 2]), windows, params(taylor=variant))
    model.requires_grad_(True)
    stacks = [model.model.layers[layer].mlp.experts for layer in (1, 2)]
    flat = [tensor for stack in stacks for tensor in (stack.gate_up_proj, stack.down_proj)]

    def slopes(tokens):
        return torch.autograd.grad(model(tokens, labels=tokens).loss, flat)

    firsts, singles = slopes(windows), [slopes(window[None]) for window in windows]
    terms = []
    for i, (w, g) in enumerate(zip(flat, firsts, strict=True)):
        h = torch.stack([single[i].square() for single in singles]).mean(0)
        term = (w * g - 0.5 * w * h * w if variant == "param_mix" else w * g).detach()
        terms.append(term if variant == "vectorize" else term.abs())
    for i, score in enumerate(found):
        layer, expert = divmod(i, 6)
        gate, up = terms[2 * layer][expert].chunk(2)
        slices = (gate.sum(1), up.sum(1), terms[2 * layer + 1][expert].sum(0))
        torch.testing.assert_close(score, sum(each.abs() for each in slices).double(), rtol=1e-3, atol=1e-7)


def test_refit_solves_least_squares_over_the_tokens_of_each_expert(windows):
    model = mixture_of("mixtral")
    rows, down = routed(model, 0, windows), model.model.layers[0].mlp.experts.down_proj
    before, activations, keep = down.detach().clone().double(), Activations(model, windows), torch.arange(1, 24, 2)
    for module in block_modules(model, [], [0]):
        x = rows[module.expert].double()
        update("refit").update(module, keep, activations.inputs(module))
        damping = DAMPING * x.square().mean(0).mean() * len(x)
        ridge = torch.cat([x, damping.sqrt() * torch.eye(24)])
        wanted = torch.linalg.lstsq(ridge[:, keep], ridge @ before[module.expert].T).solution.T
        torch.testing.assert_close(down[module.expert][:, keep].double(), wanted, rtol=1e-3, atol=1e-5)
        assert not down[module.expert][:, ::2].any()


@pytest.mark.parametrize("everywhere", [True, False])
@pytest.mark.parametrize("family", EXPERTS)
def test_what_is_left_is_saved_loaded_and_counted(family, everywhere, windows, tmp_path):
    """One width: the plain class, which transformers loads; else the pruned class. Streaming gives the same."""
    own = params(method="obs", ratio=0.3, mlp_layers=[0, 3] if everywhere else [1, 3])
    model, metrics = pruned_and_saved(mixture_of(family), windows, own, tmp_path)
    assert widths(model) == [16 if everywhere else 24, 16, 16]
    kind = ARCHITECTURES[family.split()[0]]
    assert type(model) is (plain_class if everywhere else pruned_class)(kind)
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "one", trust_remote_code=not everywhere)
    assert torch.equal(logits(theirs, windows), logits(model, windows))
    options = {"max_new_tokens": 6, "do_sample": False, "eos_token_id": None}
    cached = model.generate(windows[:1], cache_implementation="static", **options)
    assert torch.equal(cached, model.generate(windows[:1], use_cache=False, **options))

    shape, counts = shape_of(model.config.to_dict()), parameter_counts(model)
    assert counts["parameters"] == parameters(shape) == metrics["parameters"] == metrics["parameters_nonzero"] + 32
    idle = linear_weights(shape) - linear_weights(shape, of_a_token=True)
    assert idle == sum(3 * 32 * width * 4 for width in widths(model))
    assert counts["active_parameters"] == metrics["active_parameters"] == parameters(shape) - idle
    assert metrics["active_parameters_before"] - metrics["active_parameters"] == 2 * 96 * (72 - sum(widths(model)))
    assert count_macs(model, 16) == exact_macs(shape, 16)


@pytest.mark.parametrize("criterion", BLOCK.takes["criterion"])
def test_every_criterion(criterion, windows):
    pruned, _ = prune(mixture_of("qwen3_moe"), windows, params(criterion=criterion, ratio=0.6, iterative_steps=2))
    assert widths(pruned) == [24, 8, 24]
    assert torch.isfinite(logits(pruned, windows)).all()


@pytest.mark.parametrize("name", BLOCK.takes["allocation"])
def test_every_allocation_meets_the_ratio(name, windows, monkeypatch):
    monkeypatch.setattr(search, "TRIALS", 2)
    monkeypatch.setattr(sensitivity, "LEVELS", 3)
    own = params(
        criterion="wanda_sp", allocation=name, update="refit", ratio=0.3, ratio_of="parameters",
        attention_layers=[0, 3], mlp_layers=[0, 3],
    )  # fmt: skip
    _, metrics = prune(mixture_of("mixtral"), windows, own)
    removed = metrics["parameters_before"] - metrics["parameters"]
    assert abs(0.3 * metrics["parameters_before"] - removed) < 6 * 96 * 8  # what eight channels of a layer hold


def test_a_predicted_loss_of_an_expert_is_that_of_the_change_of_its_mixture(windows):
    model = mixture_of("mixtral")
    gradients = fisher.output_gradients(model, windows, 0, {(1, "mlp")})[1, "mlp"]
    activations, module = Activations(model, windows), block_modules(model, [], [1])[2]
    predict = fisher.predicted_loss(activations.inputs(module), gradients[:, :50])
    outputs = []
    for factor in (1, 0.8):
        with torch.no_grad():
            module.output.weight.mul_(factor)
            outputs.append(activations.half.result(activations.read_by_output()[0]).flatten(0, 1)[:50])
    squares = (gradients[:, :50].float() * (outputs[1] - outputs[0])).sum(-1).square()
    assert predict() == pytest.approx(0.5 * squares.mean().item(), rel=1e-3)


@pytest.mark.parametrize("unit", ["MMACs", "MiB", "ms"])
def test_budgets_count_the_channels_of_a_token(unit, windows):
    model = mixture_of("qwen3_moe")
    own = params(method="l2", allocation="global", mlp_layers=[0, 3], budget="0.000001 ms", budget_length=16)
    if unit == "ms":
        weight = model.model.layers[0].mlp.experts.gate_up_proj
        with pytest.raises(UserError, match="cannot be met"):
            prune(model, windows, own)
        assert weight.shape == (6, 48, 32)
        return
    total = count_macs(model, 16) / 1e6 if unit == "MMACs" else (4 * model.num_parameters() + 3 * 16 * 128) / 2**20
    pruned, metrics = prune(model, windows, own.model_copy(update={"budget": f"{0.9 * total} {unit}"}))
    assert metrics["budget_before"] == pytest.approx(total, rel=1e-12)
    left = count_macs(pruned, 16) / 1e6 if unit == "MMACs" else (4 * pruned.num_parameters() + 3 * 16 * 128) / 2**20
    assert 0.8 * total < left <= 0.9 * total
    assert metrics["budget_actual"] == pytest.approx(left, rel=1e-12)
