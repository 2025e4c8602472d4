"""FLAP: how much what a unit feeds into the output fluctuates (An et al. 2024, its metric WIFV).

Of column j of the output matrix that is Var(X_j) ||W_:,j||^2. A unit whose activation is constant is free to remove,
once a bias stands in for its mean (update `bias`).
"""

import torch

from stages.prune.inputs import Inputs
from stages.prune.units import Module


@torch.no_grad()
def score_inputs(module: Module, inputs: Inputs) -> torch.Tensor:
    """Return the sum over each unit's columns, shape (1, units)."""
    mean, square = inputs.moments
    variance = (square - mean.square()).clamp_min(0)
    columns = variance * inputs.linear.weight.double().square().sum(0)
    return columns.view(1, module.units, -1).sum(-1)
