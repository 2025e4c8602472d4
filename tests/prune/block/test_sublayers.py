"""Allocation sublayers: the knapsack with whole modules, their predicted losses, and what goes from the model."""

import itertools

import pytest
import torch
from helpers import tiny_experts, tiny_family, tiny_llama, tiny_tokenizer
from hypothesis import given, settings
from hypothesis import strategies as st
from task_helpers import params_of_all, task_by

from stages.common.errors import UserError
from stages.models.checkpoint import load_model, save_checkpoint
from stages.models.parts import Parts
from stages.models.prunable import block_modules
from stages.profile.macs import count_macs
from stages.prune.block import budget, costs
from stages.prune.block.allocation import sensitivity
from stages.prune.block.allocation.fisher import output_gradients
from stages.prune.block.allocation.sublayers import Sublayers, best_levels
from stages.prune.families import check_family
from stages.prune.pruning import prune

LAYERS = 3


def params(**changes):
    usual = {"method": "activation_norm", "allocation": "sublayers", "ratio": 0.3, "ratio_of": "parameters"}
    return params_of_all(LAYERS, **usual | changes)


def task_of(model, windows, **changes):
    return task_by(params(**changes), model, windows)


def silenced(model, gone):
    """Return `model` with what these attentions and MLPs write to the residual stream at zero."""
    for layer, kind in gone:
        half = Parts(model).layers[layer]
        output = half.self_attn.o_proj if kind == "attention" else half.mlp.down_proj
        with torch.no_grad():
            for parameter in output.parameters():
                parameter.zero_()
    return model


@torch.no_grad()
def logits(model, tokens):
    return model(tokens).logits


@settings(max_examples=40, deadline=None)
@given(
    tables=st.lists(st.lists(st.floats(0, 1), min_size=3, max_size=3), min_size=6, max_size=6),
    ratio=st.sampled_from([0.02, 0.1, 0.3, 0.6]),
)
def test_the_levels_are_as_good_as_trying_everything(tables, ratio):
    task = task_of(tiny_llama(), torch.zeros(1, 4, dtype=torch.int64), ratio=ratio)
    losses = [
        dict(zip((0, module.units // 2, module.units), (0.0, *sorted(table)[1:]), strict=True))
        for module, table in zip(task.modules, tables, strict=True)
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sensitivity, "BUCKETS", 10**6)  # no rounding
        got = best_levels(task, losses)

    most = task.excess + 3 * 32 / 2  # half a channel more

    def whole(counts):
        return sum(task.costs.saved(i, n) for i, n in enumerate(counts) if n == task.modules[i].units)

    def value(counts):
        reached = sum(task.costs.saved(i, count) for i, count in enumerate(counts))
        return (-min(reached, task.excess), sum(losses[i][count] for i, count in enumerate(counts)))

    def allowed(counts):
        return any(counts[i] < task.modules[i].units for i in (0, 2, 4))  # one attention stays

    assert allowed(got) and whole(got) <= most
    every = [(value(each), each) for each in itertools.product(*losses)]
    removed, least = min(every)[0]
    best = [each for found, each in every if found[0] == removed and found[1] < least + 1e-9]
    if all(allowed(each) and whole(each) <= most for each in best):
        assert value(got) == pytest.approx((removed, least))


@pytest.mark.parametrize("family", ["llama", "qwen3 biased", "opt"])
def test_the_loss_of_a_whole_module_is_that_of_its_output_with_biases(family, windows):
    task = task_of(tiny_family(family), windows, update="refit")
    parts, outputs = Parts(task.model), {}
    places = {(module.layer, module.kind) for module in task.modules}
    gradients = output_gradients(task.model, windows, task.params.seed, places)
    for module in task.modules:
        module.output.register_forward_hook(
            lambda _, args, out, key=(module.layer, module.kind): outputs.update({key: out.detach().flatten(0, 1)})
        )
    losses = Sublayers().losses(task)
    logits(task.model, windows)
    for module, table in zip(task.modules, losses, strict=True):
        key = (module.layer, module.kind)
        assert (module.units in table) == (module.kind in parts.family.skipped_modules)
        if module.units in table:
            expected = 0.5 * (gradients[key].float() * outputs[key]).sum(-1).square().mean().item()
            assert table[module.units] == pytest.approx(expected, rel=1e-4)


# Four channels more than what is silent, with the biases that the update adds: less than one level, but not so if an
# MLP kept its norm and one channel.
@pytest.mark.parametrize(("update", "more"), [("none", 400), ("bias", 40), ("realign", 400)])
def test_what_writes_next_to_nothing_is_gone_and_the_rest_meets_the_ratio(update, more, windows, tmp_path):
    gone = [(0, "attention"), (1, "mlp"), (2, "attention")]
    model = tiny_llama(mlp=48)
    size, channel = model.num_parameters(), 3 * 32 + 2 * (update == "bias")
    ratio = (2 * (3072 + 32) + 48 * 96 + 32 + more) / size
    pruned, metrics = prune(silenced(model, gone), windows, params(ratio=ratio, update=update))
    save_checkpoint(pruned, tiny_tokenizer(), tmp_path)
    loaded = load_model(tmp_path)
    assert type(loaded).__name__ == "PrunedLlamaForCausalLM"
    skips = {
        layer: each["skip"] for layer, each in loaded.config.to_dict()["per_layer_config"].items() if "skip" in each
    }
    assert {int(layer): kinds for layer, kinds in skips.items()} == {0: ["attention"], 1: ["mlp"], 2: ["attention"]}
    assert torch.equal(logits(loaded, windows), logits(pruned, windows))
    assert abs(size - loaded.num_parameters() - ratio * size) <= channel
    assert metrics["parameters"] == loaded.num_parameters()
    assert not [name for name in loaded.state_dict() if "layers.1.mlp" in name or "layers.1.post_attention" in name]
    cached = loaded(windows, use_cache=True).past_key_values.layers
    assert [each.keys is not None for each in cached] == [False, True, False]


def test_a_ratio_that_whole_modules_meet_leaves_the_base_without_them(windows):
    """Layer 1's MLP is exactly the ratio: the pruned model is the base with that MLP silent."""
    gone = [(1, "mlp")]
    model = silenced(tiny_llama(), gone)
    expected, size = logits(model, windows), model.num_parameters()
    ratio = (3 * 32 * 24 + 32) / size
    pruned, _ = prune(model, windows, params(ratio=ratio))
    torch.testing.assert_close(logits(pruned, windows), expected)
    assert [each["intermediate_size"] for each in Parts(pruned).widths] == [24, 0, 24]
    assert {each["num_key_value_heads"] for each in Parts(pruned).widths} == {2}
    assert count_macs(pruned, 16) == count_macs(tiny_llama(), 16) - 16 * 3 * 32 * 24


@pytest.mark.parametrize(("measure", "unit"), [("memory", "MiB"), ("macs", "MMACs")])
def test_a_budget_is_kept_to_within_a_unit(measure, unit, windows):
    model, scale = silenced(tiny_llama(mlp=48, bias=True), [(1, "mlp"), (2, "attention")]), budget.UNITS[unit][0]
    modules = block_modules(model, range(LAYERS), range(LAYERS))
    total, prices, rests = costs.MEASURES[measure](model, modules, 16)
    silent = sum(modules[i].units * prices[i] + rests[i] for i in (3, 4))
    limit = round((total - silent - 4.5 * min(prices)) / scale, 6)
    pruned, metrics = prune(model, windows, params(budget=f"{limit} {unit}", budget_length=16))
    widths = Parts(pruned).widths
    assert not widths[1]["intermediate_size"] and not widths[2]["num_attention_heads"]
    assert metrics["budget_actual"] * scale == costs.MEASURES[measure](pruned, [], 16)[0]
    assert limit - max(prices) / scale < metrics["budget_actual"] <= limit


def test_experts_stay_and_attentions_go(windows):
    model = tiny_experts("mixtral", width=16)
    with torch.no_grad():
        model.model.layers[1].self_attn.o_proj.weight.zero_()
    pruned, _ = prune(model, windows, params(ratio=(3072 + 32) / model.num_parameters()))
    assert [each["num_key_value_heads"] for each in Parts(pruned).widths] == [2, 0, 2]
    assert {Parts(pruned).mlp_width(layer) for layer in Parts(pruned).layers} == {16}


def test_norms_of_results_are_refused():
    with pytest.raises(UserError, match=r"sublayers is not allowed for model_type = 'gemma2', .*such as two_stage"):
        check_family(params(), "gemma2")
