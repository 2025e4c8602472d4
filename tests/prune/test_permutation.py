"""A model whose units stand in another order computes the same, and each of its units is worth the same."""

import pytest
import torch
from helpers import prune_params, tiny_family, tiny_llama

from stages.models.prunable import block_modules
from stages.prune.block import BLOCK
from stages.prune.channel import CHANNEL, DIRECTIONS
from stages.prune.channel import pruning as channel
from stages.prune.channel.stream import norms, stream
from stages.prune.criteria import score_units


def permuted(tensor: torch.Tensor, units: int, dim: int, order: torch.Tensor) -> torch.Tensor:
    """Return `tensor` with its units along dimension `dim` in `order`."""
    return tensor.unflatten(dim, (units, -1)).index_select(dim, order).flatten(dim, dim + 1)


def permute(module, order: torch.Tensor) -> None:
    """Bring the units of `module` into `order`, in every matrix that they cross."""
    with torch.no_grad():
        for matrix, dim in module.matrices:
            matrix.weight.copy_(permuted(matrix.weight, module.units, dim, order))
            if dim == 0 and matrix.bias is not None:
                matrix.bias.copy_(permuted(matrix.bias, module.units, 0, order))


def check_same(model, other, windows) -> None:
    with torch.no_grad():
        torch.testing.assert_close(other(windows).logits, model(windows).logits, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("criterion", sorted(set(BLOCK.takes["criterion"]) - {"random"}))
@pytest.mark.parametrize("kind", ["attention", "mlp"])
def test_permuting_units_permutes_their_scores(kind, criterion, windows):
    model, other = (tiny_llama(heads=8, kv_heads=4, bias=True) for _ in range(2))
    layers = ([1], []) if kind == "attention" else ([], [1])
    (module,), (twin,) = (block_modules(each, *layers) for each in (model, other))
    order = torch.randperm(module.units, generator=torch.Generator().manual_seed(5))
    permute(twin, order)
    check_same(model, other, windows)
    before, after = (
        score_units(criterion, each, [one], windows, prune_params(criterion=criterion))[0]
        for each, one in ((model, module), (other, twin))
    )
    torch.testing.assert_close(after, before[order], rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize("criterion", sorted({*CHANNEL.takes["criterion"]} - {"random", *DIRECTIONS}))
def test_permuting_channels_of_the_stream_permutes_their_scores(criterion, windows):
    model, other = (tiny_family("llama") for _ in range(2))
    order = torch.randperm(32, generator=torch.Generator().manual_seed(5))
    permute(stream(other), order)
    with torch.no_grad():
        for norm in norms(other):
            norm.weight.copy_(norm.weight[order])
    check_same(model, other, windows)
    params = prune_params(method="channel_l2", criterion=criterion)
    before, after = (channel.scores(each, stream(each), windows, params) for each in (model, other))
    torch.testing.assert_close(after, before[order], rtol=1e-3, atol=1e-7)
