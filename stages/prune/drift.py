"""Undo what pruning earlier modules did to the residual stream, by least squares towards the dense model's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from stages.common import processes
from stages.prune.inputs import DAMPING, products

if TYPE_CHECKING:
    from stages.prune.activations import Activations
    from stages.prune.inputs import Inputs


@torch.no_grad()
def undo_drift(inputs: Inputs) -> torch.Tensor:
    """Return F, (in, in): on the drifted stream, W F puts out what W does on the dense model's.

    W is any of the matrices that read the stream, whose `inputs` these are.
    """
    here, (square, added) = inputs.activations, inputs.hessian_and_damping
    cross = products(here.normed(here.dense_sources), inputs.batches()) / inputs.tokens
    cross.diagonal().add_(added)
    return torch.cholesky_solve(cross.T, torch.linalg.cholesky(square)).T


@torch.no_grad()
def fit_last_norm(activations: Activations) -> None:
    """Set the weights of the last norm to the least-squares solution, each for its channel."""
    activations.go_to(len(activations.layers))
    states, dense = activations.normed(activations.hidden), activations.normed(activations.reference)
    bias = getattr(activations.last_norm, "bias", None)
    shift = 0 if bias is None else bias.double()  # the weights have no part in it
    pairs = [
        (x.flatten(0, 1).double() - shift, y.flatten(0, 1).double() - shift) for x, y in zip(states, dense, strict=True)
    ]
    fit_norm(activations.last_norm, activations.parts.family.norm.offset, pairs)


@torch.no_grad()
def fit_norm(norm: Any, offset: float, pairs: list[tuple[torch.Tensor, torch.Tensor]]) -> None:
    """Set the weights of a norm to the least-squares solution, each for its channel.

    `pairs` are what it puts out without its bias, and what it should: a batch each, (tokens, channels), float64. It
    multiplies by `offset` and its weights.
    """
    sums = torch.stack([torch.stack([(x * x).sum(0), (y * x).sum(0)]) for x, y in pairs]).sum(0)
    square, cross = processes.add_up(sums)
    strength = DAMPING * square.mean().item() or 1.0
    fit = (cross + strength) / (square + strength)
    norm.weight.copy_(((norm.weight.double() + offset) * fit - offset).to(norm.weight.dtype))
