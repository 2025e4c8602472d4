"""Updates against naive float64 references, and the laws they obey."""

import copy

import pytest
import torch
from activation_helpers import damped, recorded
from helpers import prune_params, tiny_llama
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.models.prunable import block_modules
from stages.prune.activations import Activations
from stages.prune.block.criteria.obs import Obs
from stages.prune.block.pruning import prune
from stages.prune.block.update.bias import Bias
from stages.prune.block.update.realign import Realign
from stages.prune.block.update.refit import Refit
from stages.prune.criteria import combined


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
    Refit().update(module, keep, Activations(model, windows).inputs(module))
    got = module.output.weight.detach().double()
    torch.testing.assert_close(got, expected, rtol=1e-3, atol=5e-5)  # products are taken in float32

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
    strength = x.square().mean(0)
    cross = target.T @ x / len(x) + weight * strength
    hessian = x.T @ x / len(x) + strength.diag()
    expected = torch.zeros_like(weight)
    expected[:, kept] = cross[:, kept] @ torch.linalg.inv(hessian[kept][:, kept])
    Realign().update(module, keep, inputs)
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
    Realign().receive(module, activations.inputs(module))
    strength = drifted.square().sum(0)
    inverse = torch.linalg.inv(drifted.T @ drifted + strength.diag())
    for weight, (linear, _) in zip(weights, module.matrices, strict=False):
        expected = (weight @ dense.T @ drifted + weight * strength) @ inverse
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
    Realign().receive(module, inputs)
    target, hessian = inputs.aim.clone(), inputs.hessian.clone()
    errors = []
    for unit in range(module.units):
        kept = [other for other in range(module.units) if other != unit]
        errors.append(-torch.trace(target[:, kept] @ torch.linalg.inv(hessian[kept][:, kept]) @ target[:, kept].T))
    score = combined(Obs().score_inputs(module, inputs), prune_params())
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
    Realign().finish(activations)
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
        Realign().receive(module, inputs)
        Realign().update(module, torch.arange(module.units), inputs)
    Realign().finish(activations)
    for key, value in model.state_dict().items():
        torch.testing.assert_close(value, before[key], rtol=1e-3, atol=1e-4)


def test_bias_is_the_mean_output_of_what_is_removed(windows):
    model = tiny_llama()
    Bias().prepare(model)
    (module,) = block_modules(model, [], [1])
    (x,) = recorded(model, [module], windows)
    Bias().update(module, torch.arange(10), Activations(model, windows).inputs(module))
    expected = (x[:, 10:] @ module.output.weight.detach().double()[:, 10:].T).mean(0)
    torch.testing.assert_close(module.output.bias.detach().double(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("update", ["refit", "realign", "bias"])
def test_a_channel_that_is_constant_or_a_copy_costs_nothing_to_remove(update, windows, monkeypatch):
    # What more damping keeps of W is not made up for.
    monkeypatch.setattr("stages.prune.inputs.DAMPING_TOWARDS_DENSE", 0.01)
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
