"""FLAP: how much what a unit feeds into the output fluctuates (An et al. 2024, its metric WIFV).

Of column j of the output matrix that is Var(X_j) ||W_:,j||^2. A unit whose activation is constant is free to remove,
once a bias replaces its mean (update `bias`).
"""

import torch

from stages.prune.criteria import MomentCriterion


class Flap(MomentCriterion):
    @torch.no_grad()
    def score_moments(self, weight: torch.Tensor, mean: torch.Tensor, square: torch.Tensor, units: int) -> torch.Tensor:
        """Return the sum over each unit's columns."""
        variance = (square - mean.square()).clamp_min(0)
        columns = variance * weight.double().square().sum(0)
        return columns.view(1, units, -1).sum(-1)
