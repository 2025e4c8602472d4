"""Activity: the share of tokens at which a unit's activations are not zero, 1 - APoZ (Hu et al. 2016, eq. 1).

A gated MLP with SiLU is hardly ever exactly zero: next to zero counts (inputs.ZERO).
"""

import torch

from stages.models.prunable import Prunable
from stages.prune.criteria import ActivationCriterion
from stages.prune.inputs import Inputs


class Activity(ActivationCriterion):
    def score_inputs(self, module: Prunable, inputs: Inputs) -> torch.Tensor:
        """Return 1 - the mean share of zeros of each unit's activations."""
        return 1 - inputs.zeros.view(1, module.units, -1).mean(-1)
