"""Similarity: the others can stand in for a unit near the geometric median of all (FPGM, He et al. 2019, section 3.4).

The median minimises the summed distance to all units; only that of the units themselves is needed, sum_h ||w_g - w_h||.
"""

import torch

from stages.prune.criteria import WeightCriterion
from stages.prune.units import by_unit


class Similarity(WeightCriterion):
    @torch.no_grad()
    def score_matrix(self, weight: torch.Tensor, units: int, dim: int) -> torch.Tensor:
        """Return sum_h ||w_g - w_h||, the summed Euclidean distance of each unit's slice to all others."""
        slices = by_unit(weight, units, dim)[0].movedim(dim, 0).flatten(1).float()
        return torch.cdist(slices, slices, compute_mode="donot_use_mm_for_euclid_dist").sum(1).cpu()
