"""Standardised: all layers compete by standardised scores (FLAP, An et al. 2024, its AL-AM).

(score - mean) / deviation, both of the module's own units.
"""

import torch

from stages.prune.block.allocation import RankedAllocation
from stages.prune.block.task import Task


class Standardised(RankedAllocation):
    def keys(self, task: Task) -> list[torch.Tensor]:
        """Return each unit's distance from the mean of its module's scores in standard deviations, ascending."""
        return [
            (score - score.mean()).sort().values / score.std(correction=0).clamp_min(torch.finfo(score.dtype).tiny)
            for score in task.scores
        ]
