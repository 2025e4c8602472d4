"""Activity: the share of tokens at which a unit's activations are not zero, 1 - APoZ (Hu et al. 2016, eq. 1).

A gated MLP with SiLU is hardly ever exactly zero: next to zero counts (activations.ZERO).
"""

import torch

from stages.prune.inputs import Inputs
from stages.prune.units import Module


def score_inputs(module: Module, inputs: Inputs) -> torch.Tensor:
    """Return 1 - the mean share of zeros of each unit's activations, shape (1, units)."""
    return 1 - inputs.zeros.view(1, module.units, -1).mean(-1)
