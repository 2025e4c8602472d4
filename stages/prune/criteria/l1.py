"""L1: the sum of absolute weights (Li et al. 2017, section 3.1, of a filter).

Here of a unit's slice of each matrix (LLM-Pruner, Ma et al. 2023, its `l1` pruner).
"""

import torch

from stages.prune.criteria import WeightCriterion
from stages.prune.units import power_sums_by_unit


class L1(WeightCriterion):
    def score_matrix(self, weight: torch.Tensor, units: int, dim: int) -> torch.Tensor:
        """Return sum |w| over each unit's slice, accumulated in float32."""
        return power_sums_by_unit(weight, units, dim, 1)
