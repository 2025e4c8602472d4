"""Activations, and the criteria that look at them, against naive float64 references, and the laws they obey."""

import weakref

import pytest
import torch
from activation_helpers import damped, recorded
from helpers import prune_params, tiny_llama

from stages.common.errors import UserError
from stages.models.prunable import block_modules
from stages.prune import inputs as inputs_module
from stages.prune.activations import Activations, block_influence
from stages.prune.block import BLOCK
from stages.prune.block.criteria.obs import removal_errors
from stages.prune.criteria import ActivationCriterion, criterion, score_units
from stages.prune.inputs import ZERO, Inputs
from stages.prune.pruning import prune

OF_ACTIVATIONS = [name for name in BLOCK.takes["criterion"] if isinstance(criterion(name), ActivationCriterion)]


def naive_score(name, module, x):
    """Return the scores of a module by loops over its units, in float64."""
    weight, scores = module.output.weight.detach().double(), []
    rms = x.square().mean().sqrt()
    for unit in range(module.units):
        columns = range(unit * x.shape[1] // module.units, (unit + 1) * x.shape[1] // module.units)
        parts = {
            "wanda_sp": lambda j: weight[:, j].abs().sum() * x[:, j].square().mean().sqrt(),
            "flap": lambda j: x[:, j].var(correction=0) * weight[:, j].square().sum(),
            "activation_norm": lambda j: x[:, j].square().mean(),
            "activity": lambda j: (x[:, j].abs() > ZERO * rms).double().mean() / len(columns),  # noqa: B023
        }
        total = sum(parts[name](j).item() for j in columns)
        scores.append(total**0.5 if name == "activation_norm" else total)
    return torch.tensor(scores, dtype=torch.float64)


def naive_removal(weight, hessian, units):
    """Return each unit's error at its removal, solving the least-squares problem of what is left anew each time."""
    columns = torch.arange(weight.shape[1]).view(units, -1)
    left, errors = list(range(units)), torch.zeros(units, dtype=torch.float64)
    while left:
        costs = []
        for unit in left:
            kept = [int(j) for other in left if other != unit for j in columns[other]]
            change = -weight.clone()
            if kept:
                change[:, kept] += weight @ hessian[:, kept] @ torch.linalg.inv(hessian[kept][:, kept])
            costs.append(0.5 * torch.trace(change @ hessian @ change.T).item())
        best = min(range(len(left)), key=lambda i: costs[i])
        errors[left.pop(best)] = costs[best]
    return errors


@pytest.mark.parametrize("shape", [(4, 4), (4, 2), (8, 2)])
@pytest.mark.parametrize("name", sorted(set(OF_ACTIVATIONS) - {"obs"}))
def test_scores_of_activations_equal_a_naive_loop(shape, name, windows):
    model = tiny_llama(heads=shape[0], kv_heads=shape[1], bias=True)
    modules = block_modules(model, range(1, 3), range(3))
    params = prune_params(criterion=name)
    scores = score_units(name, model, modules, windows, params)
    for module, got, x in zip(modules, scores, recorded(model, modules, windows), strict=True):
        torch.testing.assert_close(got, naive_score(name, module, x), rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(("units", "width"), [(6, 1), (3, 4)])
def test_obs_equals_solving_anew_for_every_removal(units, width):
    generator = torch.Generator().manual_seed(3)
    weight = torch.randn(5, units * width, generator=generator, dtype=torch.float64)
    hessian = damped(torch.randn(40, units * width, generator=generator, dtype=torch.float64))
    torch.testing.assert_close(removal_errors(weight, hessian, units), naive_removal(weight, hessian, units))


def test_similarity_equals_a_naive_loop(windows):
    model = tiny_llama()
    modules = block_modules(model, [1], [1])
    for module, got in zip(modules, score_units("similarity", model, modules, windows, prune_params()), strict=True):
        expected = torch.zeros(module.units, dtype=torch.float64)
        for linear, dim in module.matrices:
            parts = linear.weight.detach().double().chunk(module.units, dim)
            for unit, part in enumerate(parts):
                expected[unit] += sum((part - other).norm().item() for other in parts)
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6)


def test_activations_that_are_not_finite_are_refused(windows):
    model = tiny_llama()
    with torch.no_grad():
        model.model.embed_tokens.weight.fill_(float("nan"))
    with pytest.raises(UserError, match="calibration activations of layer 1 attention are not finite"):
        prune(model, windows, prune_params(criterion="obs"))


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_activations_are_those_of_the_whole_model(attention, windows):
    model = tiny_llama()
    model.set_attn_implementation(attention)
    modules = block_modules(model, range(3), range(3))
    activations = Activations(model, windows)
    for module, x in zip(modules, recorded(model, modules, windows), strict=True):
        got = torch.cat(list(activations.inputs(module).batches()))
        torch.testing.assert_close(got.double(), x, rtol=1e-3, atol=1e-4)


def test_block_influence_is_the_cosine_between_input_and_output(windows):
    model, windows, hidden = tiny_llama(), windows.clamp(min=1), []  # token 0 is padding: a zero vector has no angle
    for layer in model.model.layers:
        layer.register_forward_hook(lambda _, args, out: hidden.append((args[0].double(), out.double())))
    with torch.no_grad():
        model(windows)
    expected = [1 - ((a * b).sum(-1) / (a.norm(dim=-1) * b.norm(dim=-1))).mean() for a, b in hidden]
    torch.testing.assert_close(block_influence(model, windows), torch.stack(expected), rtol=1e-5, atol=1e-6)


STATISTICS = {"moments", "hessian_and_damping", "inverse_factor", "aim"}


@pytest.mark.parametrize("method", ["flap", "obs", "best", "wanda", "sparsegpt", "sparsegpt_realign"])
def test_the_statistics_of_one_matrix_or_one_layer_are_held_at_a_time(method, windows, monkeypatch):
    alive: weakref.WeakSet[Inputs] = weakref.WeakSet()
    create, check, held = Inputs.__init__, inputs_module.finite, []

    def created(inputs, *arguments):
        create(inputs, *arguments)
        alive.add(inputs)

    def checked(statistics, module):
        held.append(1 + sum(bool(vars(each).keys() & STATISTICS) for each in alive))  # these, and those of others
        return check(statistics, module)

    monkeypatch.setattr(Inputs, "__init__", created)
    monkeypatch.setattr(inputs_module, "finite", checked)
    params = prune_params(method=method)
    prune(tiny_llama(), windows, params)
    assert len(held) >= 4
    assert max(held) == (4 if method == "sparsegpt" else 1)  # of a layer, which it reads while it is dense
