"""L2: the sum of squared weights of a unit's slice of each matrix (LLM-Pruner, Ma et al. 2023, its `l2` pruner)."""

import torch

from stages.prune.criteria import WeightCriterion
from stages.prune.units import power_sums_by_unit


class L2(WeightCriterion):
    def score_matrix(self, weight: torch.Tensor, units: int, dim: int) -> torch.Tensor:
        """Return sum w^2 over each unit's slice, accumulated in float32."""
        return power_sums_by_unit(weight, units, dim, 2)
