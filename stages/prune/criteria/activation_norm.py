"""Activation norm: how large a unit's activations are on the calibration tokens (Molchanov et al. 2017, section 2.2).

There their mean or their deviation; here the root of the mean square, sqrt(E ||x_g||^2), which holds both.
"""

import torch

from stages.prune.inputs import Inputs
from stages.prune.units import Module


def score_inputs(module: Module, inputs: Inputs) -> torch.Tensor:
    """Return sqrt(E ||x_g||^2) of each unit g, shape (1, units)."""
    _, square = inputs.moments
    return square.view(1, module.units, -1).sum(-1).sqrt()
