"""Activation norm: how large a unit's activations are on the calibration tokens (Molchanov et al. 2017, section 2.2).

There their mean or their deviation; here the root of the mean square, sqrt(E ||x_g||^2), which holds both.
"""

import torch

from stages.prune.criteria import MomentCriterion


class ActivationNorm(MomentCriterion):
    def score_moments(self, weight: torch.Tensor, mean: torch.Tensor, square: torch.Tensor, units: int) -> torch.Tensor:
        """Return sqrt(E ||x_g||^2) of each unit g."""
        return square.view(1, units, -1).sum(-1).sqrt()
