"""Wanda-sp: weights times the norm of what they read (Wanda, Sun et al. 2024, eq. 1), summed over a unit.

The score of column j of the output matrix is sum_i |W_ij| ||X_j||_2; X_j is divided by the root of the token count. The
name and the sum are those of An et al. 2024.
"""

import torch

from stages.prune.criteria import MomentCriterion


class WandaSp(MomentCriterion):
    @torch.no_grad()
    def score_moments(self, weight: torch.Tensor, mean: torch.Tensor, square: torch.Tensor, units: int) -> torch.Tensor:
        """Return the sum over each unit's columns."""
        columns = weight.double().abs().sum(0) * square.sqrt()
        return columns.view(1, units, -1).sum(-1)
