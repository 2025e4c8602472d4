"""Allocation two_stage: how many attentions go, which, and that the MLPs meet the rest."""

import pytest
import torch
from helpers import tiny_llama
from pydantic import ValidationError
from task_helpers import params_of_all, task_by

from stages.common.errors import UserError
from stages.models.parts import Parts
from stages.models.prunable import block_modules
from stages.prune.block import REMOVE_WHOLE, budget, costs
from stages.prune.block.allocation.two_stage import least_missed, number_of_attentions
from stages.prune.block.divergence import Dense
from stages.prune.families import check_family
from stages.prune.pruning import prune
from stages.prune.sharing import check_shared

LAYERS = 6


def params(**changes):
    usual = {"method": "activation_norm", "allocation": "two_stage", "ratio": 0.5, "ratio_of": "parameters"}
    return params_of_all(LAYERS, **usual | changes)


def task_of(model, windows, **changes):
    return task_by(params(**changes), model, windows)


def lacking(model) -> list[int]:
    return [i for i, each in enumerate(Parts(model).widths) if not each["num_attention_heads"]]


def base(**changes):
    return tiny_llama(layers=LAYERS, mlp=48, **changes)


@pytest.mark.parametrize(
    ("width", "ratio", "expected"), [(48, 0.05, 0), (48, 0.5, 3), (48, 0.7, 5), (24, 0.3, 3), (96, 0.3, 1)]
)
def test_the_number_of_attentions_is_that_of_2ssp(width, ratio, expected, windows):
    task = task_of(tiny_llama(layers=LAYERS, mlp=width), windows, ratio=ratio)
    attention, mlp = 3072 + 32, 3 * 32 * width + 32
    share = ratio * task.model.num_parameters() / (LAYERS * (attention + mlp))
    assert round(LAYERS * min(1, share) ** (mlp / attention / 1.5)) == expected == number_of_attentions(task)


def test_the_attentions_that_go_are_those_of_a_search_that_measures_all_each_time(windows):
    model = base()
    with torch.no_grad():
        for layer, share in zip(Parts(model).layers, (1, 0.3, 0.1, 0, 0.2, 1), strict=True):
            layer.self_attn.o_proj.weight *= share
    before = {name: value.clone() for name, value in model.state_dict().items()}
    task = task_of(model, windows)
    found = least_missed(task, 3)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    dense, gone = Dense(model, windows), []
    for _ in range(3):
        rises = {}
        for i, module in enumerate(task.modules):
            if module.kind == "attention" and i not in gone:
                matrices = [task.modules[k].output.weight for k in (*gone, i)]
                kept = [matrix.detach().clone() for matrix in matrices]
                with torch.no_grad():
                    for matrix in matrices:
                        matrix.zero_()
                    rises[i] = dense.of_model(model)
                    for matrix, value in zip(matrices, kept, strict=True):
                        matrix.copy_(value)
        gone.append(min(rises, key=rises.__getitem__))
    assert found == gone


@pytest.mark.parametrize("changes", [{}, {"criterion": "obs", "update": "realign"}, {"update": "bias"}])
def test_mlps_alike_make_up_the_rest_of_the_ratio(changes, windows, tmp_path):
    pruned, metrics = prune(base(), windows, params(**changes))
    widths = Parts(pruned).widths
    gone, target = lacking(pruned), 0.5 * metrics["parameters_before"]
    assert len(gone) == 3
    assert {each["num_key_value_heads"] for each in widths} == {0, 2}
    mlps = [each["intermediate_size"] for each in widths]
    assert max(mlps) - min(mlps) <= 2
    assert abs(metrics["parameters_before"] - metrics["parameters"] - target) <= 3 * 32 + 2
    assert metrics["parameters"] == pruned.num_parameters() == sum(p.numel() for p in pruned.parameters())
    assert len(pruned(windows, use_cache=True).past_key_values.layers) == LAYERS


@pytest.mark.parametrize(("amount", "measure", "unit"), [(0.11, "memory", "MiB"), (0.36, "macs", "MMACs")])
def test_a_budget_is_kept_to_within_a_channel(amount, measure, unit, windows):
    model, scale = base(bias=True), budget.UNITS[unit][0]
    channel = min(costs.MEASURES[measure](model, block_modules(model, [], range(LAYERS)), 16)[1]) / scale
    pruned, metrics = prune(model, windows, params(budget=f"{amount} {unit}", budget_length=16))
    assert lacking(pruned)
    assert metrics["budget_actual"] * scale == costs.MEASURES[measure](pruned, [], 16)[0]
    assert amount - channel < metrics["budget_actual"] <= amount


def test_heads_go_where_the_mlps_have_no_more_and_one_attention_stays(windows):
    pruned, _ = prune(base(), windows, params(ratio=0.85))
    assert {each["intermediate_size"] for each in Parts(pruned).widths} == {1}
    assert len(lacking(pruned)) == LAYERS - 1
    assert Parts(pruned).head_dim == 8


@pytest.mark.parametrize("name", REMOVE_WHOLE)
def test_what_it_does_not_go_with_is_refused(name):
    for key, value in (("ratio_of", "groups"), ("iterative_steps", 2), ("layout", "uniform")):
        with pytest.raises(ValidationError, match=f"{key} = {value} does not go with allocation = {name}; expected"):
            params(**{"allocation": name, key: value})
    with pytest.raises(ValidationError, match=f"streaming = true does not go with allocation = {name}"):
        params(allocation=name, streaming=True)
    with pytest.raises(UserError, match=f"run.processes = 2 does not go with prune.allocation = {name}"):
        check_shared(params(allocation=name), 2)
    with pytest.raises(UserError, match=f"{name} is not allowed for model_type = 'gpt_neox'"):
        check_family(params(allocation=name), "gpt_neox")
