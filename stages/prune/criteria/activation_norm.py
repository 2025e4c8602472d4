"""Activation norm: the root mean square of a unit's activations over the calibration tokens (Molchanov et al. 2017)."""

import torch

from stages.prune.activations import Inputs
from stages.prune.units import Module


def score_inputs(module: Module, inputs: Inputs) -> torch.Tensor:
    """Return sqrt(E ||x_g||^2) of each unit g, shape (1, units)."""
    _, square = inputs.moments
    return square.view(1, module.units, -1).sum(-1).sqrt()
