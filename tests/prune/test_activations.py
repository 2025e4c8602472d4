"""Criteria and updates that look at activations, against naive float64 references, and the laws they obey."""

import copy

import pytest
import torch
from helpers import prune_params, tiny_llama
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.common.errors import UserError
from stages.prune import criteria
from stages.prune.activations import ZERO, Activations, block_influence
from stages.prune.criteria.obs import removal_errors
from stages.prune.structures.block import prune
from stages.prune.units import block_modules
from stages.prune.update import bias, realign, refit

OF_ACTIVATIONS = [name for name in criteria.names() if criteria.reads_activations(name)]


def recorded(model, modules, windows):
    """Return the inputs of every module's output matrix, (tokens, in), from one plain forward pass in float64."""
    double = copy.deepcopy(model).double()
    twins = block_modules(double, range(len(double.model.layers)), range(len(double.model.layers)))
    found = {}
    for module in twins:
        module.output.register_forward_pre_hook(
            lambda _, args, key=(module.layer, module.kind): found.update({key: args[0].detach().flatten(0, 1)})
        )
    with torch.no_grad():
        double(windows)
    return [found[module.layer, module.kind] for module in modules]


def damped(x):
    hessian = x.T @ x / len(x)
    return hessian + 0.01 * hessian.diagonal().mean() * torch.eye(len(hessian), dtype=torch.float64)


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
    scores = criteria.score_units(name, model, modules, windows, params)
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
    for module, got in zip(
        modules, criteria.score_units("similarity", model, modules, windows, prune_params()), strict=True
    ):
        expected = torch.zeros(module.units, dtype=torch.float64)
        for linear, dim in module.matrices:
            parts = linear.weight.detach().double().chunk(module.units, dim)
            for unit, part in enumerate(parts):
                expected[unit] += sum((part - other).norm().item() for other in parts)
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 500), name=st.sampled_from([*OF_ACTIVATIONS, "similarity"]))
def test_permuting_channels_permutes_their_scores(seed, name):
    windows = torch.randint(0, 64, (2, 8), generator=torch.Generator().manual_seed(seed))
    order = torch.randperm(24, generator=torch.Generator().manual_seed(seed))
    model, permuted = tiny_llama(seed=seed), tiny_llama(seed=seed)
    mlp = permuted.model.layers[1].mlp
    with torch.no_grad():
        for linear, dim in ((mlp.gate_proj, 0), (mlp.up_proj, 0), (mlp.down_proj, 1)):
            linear.weight.copy_(linear.weight.index_select(dim, order))
    before, after = (
        criteria.score_units(name, each, block_modules(each, [], [1]), windows, prune_params())[0]
        for each in (model, permuted)
    )
    torch.testing.assert_close(after, before[order], rtol=1e-3, atol=1e-7)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 500), kind=st.sampled_from(["attention", "mlp"]), data=st.data())
def test_refit_is_least_squares_and_never_increases_the_error(seed, kind, data):
    windows = torch.randint(0, 64, (2, 16), generator=torch.Generator().manual_seed(seed))
    model = tiny_llama(heads=8, kv_heads=4, seed=seed)
    (module,) = block_modules(model, [1] if kind == "attention" else [], [1] if kind == "mlp" else [])
    gone = data.draw(st.sets(st.integers(0, module.units - 1), min_size=1, max_size=module.units - 1))
    keep = torch.tensor([unit for unit in range(module.units) if unit not in gone])
    (x,) = recorded(model, [module], windows)
    weight, kept = module.output.weight.detach().double().clone(), module.columns(keep)
    zeroed, hessian = torch.zeros_like(weight), damped(x)
    zeroed[:, kept] = weight[:, kept]
    expected = torch.zeros_like(weight)
    expected[:, kept] = weight @ hessian[:, kept] @ torch.linalg.inv(hessian[kept][:, kept])
    refit.update(module, keep, Activations(model, windows).inputs(module))
    got = module.output.weight.detach().double()
    torch.testing.assert_close(got, expected, rtol=1e-3, atol=1e-5)

    def error(new):
        return (x @ (new - weight).T).square().sum().item()

    assert error(got) <= error(zeroed) * (1 + 1e-4)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 500))
def test_realign_brings_the_residual_stream_back_as_well_as_least_squares_can(seed):
    windows = torch.randint(0, 64, (4, 16), generator=torch.Generator().manual_seed(seed))
    model, dense = tiny_llama(seed=seed), tiny_llama(seed=seed).double()
    below, module = block_modules(model, [], [0, 1])
    activations = Activations(model, windows, with_targets=True)
    keep = torch.arange(8)
    activations.inputs(below)
    with torch.no_grad():
        below.output.weight[:, 8:] = 0  # the stream has drifted from the dense model's
    inputs = activations.inputs(module)
    drifted = copy.deepcopy(model).double()
    x = recorded(model, [module], windows)[0]
    ends = {}
    for name, each in (("dense", dense), ("drifted", drifted)):
        each.model.layers[1].register_forward_hook(lambda _, __, out, name=name: ends.update({name: out.flatten(0, 1)}))
        with torch.no_grad():
            each(windows)
    weight, kept = module.output.weight.detach().double().clone(), module.columns(keep)
    target = ends["dense"] - ends["drifted"] + x @ weight.T
    strength = 0.01 * x.square().mean(0).mean()
    cross = target.T @ x / len(x) + strength * weight
    expected = torch.zeros_like(weight)
    expected[:, kept] = cross[:, kept] @ torch.linalg.inv(damped(x)[kept][:, kept])
    realign.update(module, keep, inputs)
    torch.testing.assert_close(module.output.weight.detach().double(), expected, rtol=1e-3, atol=1e-4)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 500), kind=st.sampled_from(["attention", "mlp"]))
def test_realign_brings_what_reads_the_stream_to_the_dense_models_outputs(seed, kind):
    windows = torch.randint(0, 64, (4, 16), generator=torch.Generator().manual_seed(seed))
    model = tiny_llama(seed=seed, bias=True)
    (below,) = block_modules(model, [], [0])
    (module,) = block_modules(model, [1] if kind == "attention" else [], [1] if kind == "mlp" else [])
    first = module.matrices[0][0]
    seen = []
    hook = first.register_forward_pre_hook(lambda _, args: seen.append(args[0].detach().flatten(0, 1).double()))
    with torch.no_grad():
        model(windows)
        activations = Activations(model, windows, with_targets=True)
        activations.inputs(below)
        below.output.weight[:, 8:] = 0  # the stream has drifted from the dense model's
        model(windows)
    hook.remove()
    dense, drifted = seen[0], seen[-1]
    weights = [linear.weight.detach().double().clone() for linear, dim in module.matrices if dim == 0]
    realign.receive(module, activations.inputs(module))
    strength = 0.01 * drifted.square().sum(0).mean()
    inverse = torch.linalg.inv(drifted.T @ drifted + strength * torch.eye(32, dtype=torch.float64))
    for weight, (linear, _) in zip(weights, module.matrices, strict=False):
        expected = (weight @ dense.T @ drifted + strength * weight) @ inverse
        torch.testing.assert_close(linear.weight.detach().double(), expected, rtol=1e-3, atol=1e-4)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 500))
def test_realign_lets_obs_remove_what_is_worth_least_for_the_dense_models_stream(seed):
    windows = torch.randint(0, 64, (4, 16), generator=torch.Generator().manual_seed(seed))
    model = tiny_llama(seed=seed)
    below, module = block_modules(model, [], [0, 1])
    activations = Activations(model, windows, with_targets=True)
    activations.inputs(below)
    with torch.no_grad():
        below.output.weight[:, 4:] = 0  # the stream has drifted from the dense model's
    inputs = activations.inputs(module)
    realign.receive(module, inputs)
    target, hessian = inputs.aim.clone(), inputs.hessian.clone()
    errors = []
    for unit in range(module.units):
        kept = [other for other in range(module.units) if other != unit]
        errors.append(-torch.trace(target[:, kept] @ torch.linalg.inv(hessian[kept][:, kept]) @ target[:, kept].T))
    score = criteria.score_module("obs", module, inputs, prune_params(criterion="obs"))
    assert errors[score.argmin()].item() == pytest.approx(min(errors).item(), rel=1e-5)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 500))
def test_realign_ends_with_the_last_norm_by_least_squares(seed):
    windows = torch.randint(0, 64, (4, 16), generator=torch.Generator().manual_seed(seed))
    model, dense = tiny_llama(seed=seed), tiny_llama(seed=seed)
    (below,) = block_modules(model, [], [0])
    activations = Activations(model, windows, with_targets=True)
    activations.inputs(below)
    with torch.no_grad():
        below.output.weight[:, 4:] = 0  # the stream has drifted from the dense model's
        x, y = (each.double().model(windows).last_hidden_state.flatten(0, 1) for each in (copy.deepcopy(model), dense))
    before = model.model.norm.weight.detach().double().clone()
    realign.finish(activations)
    strength = 0.01 * x.square().sum(0).mean()
    factors = [(x[:, j] @ y[:, j] + strength) / (x[:, j] @ x[:, j] + strength) for j in range(32)]
    torch.testing.assert_close(
        model.model.norm.weight.detach().double(), before * torch.stack(factors), rtol=1e-3, atol=1e-4
    )


def test_pruning_realigns_what_reads_a_drifted_stream(windows):
    model, dense = tiny_llama(), tiny_llama()
    params = prune_params(criterion="obs", update="realign", attention_layers=None, mlp_layers=[1, 3])
    pruned, _ = prune(model, windows, params)

    def furthest(layer):
        """Return how far the rows of the layer's gate are from the dense model's, at the most."""
        gates = (each.model.layers[layer].mlp.gate_proj.weight.detach() for each in (pruned, dense))
        return torch.cdist(*gates).amin(1).max().item()

    assert furthest(1) == pytest.approx(0, abs=1e-4)  # nothing is lost before layer 1
    assert furthest(2) > 1e-3


def test_realign_of_the_last_norm_is_part_of_pruning(windows):
    model = tiny_llama()
    before = model.model.norm.weight.clone()
    pruned, _ = prune(model, windows, prune_params(criterion="obs", update="realign"))
    assert not torch.equal(pruned.model.norm.weight, before)


def test_realign_changes_nothing_where_nothing_was_lost(windows):
    model = tiny_llama(bias=True)
    activations = Activations(model, windows, with_targets=True)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    for module in block_modules(model, range(3), range(3)):
        inputs = activations.inputs(module)
        realign.receive(module, inputs)
        realign.update(module, torch.arange(module.units), inputs)
    realign.finish(activations)
    for key, value in model.state_dict().items():
        torch.testing.assert_close(value, before[key], rtol=1e-3, atol=1e-4)


def test_bias_is_the_mean_output_of_what_is_removed(windows):
    model = tiny_llama()
    bias.prepare(model)
    (module,) = block_modules(model, [], [1])
    (x,) = recorded(model, [module], windows)
    bias.update(module, torch.arange(10), Activations(model, windows).inputs(module))
    expected = (x[:, 10:] @ module.output.weight.detach().double()[:, 10:].T).mean(0)
    torch.testing.assert_close(module.output.bias.detach().double(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("update", ["refit", "realign", "bias"])
def test_a_channel_that_is_constant_or_a_copy_costs_nothing_to_remove(update, windows):
    model, dense = tiny_llama(), tiny_llama()
    for each in (model, dense):
        mlp = each.model.layers[1].mlp
        with torch.no_grad():  # channels 12.. repeat 0..11; for the bias they are dead
            mlp.gate_proj.weight[12:] = mlp.gate_proj.weight[:12] if update != "bias" else 0
            mlp.up_proj.weight[12:] = mlp.up_proj.weight[:12]
    params = prune_params(
        criterion="flap" if update == "bias" else "obs", update=update, attention_layers=None, mlp_layers=[1, 2]
    )
    pruned, _ = prune(model, windows, params)
    with torch.no_grad():
        torch.testing.assert_close(pruned(windows).logits, dense(windows).logits, rtol=0.05, atol=0.05)


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
        got = torch.cat([batch for batch, _ in activations.inputs(module).batches()])
        torch.testing.assert_close(got, x, rtol=1e-3, atol=1e-4)


def test_block_influence_is_the_cosine_between_input_and_output(windows):
    model, windows, hidden = tiny_llama(), windows.clamp(min=1), []  # token 0 is padding: a zero vector has no angle
    for layer in model.model.layers:
        layer.register_forward_hook(lambda _, args, out: hidden.append((args[0].double(), out.double())))
    with torch.no_grad():
        model(windows)
    expected = [1 - ((a * b).sum(-1) / (a.norm(dim=-1) * b.norm(dim=-1))).mean() for a, b in hidden]
    torch.testing.assert_close(block_influence(model, windows), torch.stack(expected), rtol=1e-5, atol=1e-6)
