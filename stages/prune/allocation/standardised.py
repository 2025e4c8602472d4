"""Standardised: all layers compete by standardised scores (FLAP, An et al. 2024, its AL-AM).

(score - mean) / deviation, both of the module's own units.
"""

import torch

POOLED = True


def keys(task) -> list[torch.Tensor]:
    """Return each unit's distance from the mean of its module's scores in standard deviations, in ascending order."""
    return [
        (score - score.mean()).sort().values / score.std(correction=0).clamp_min(torch.finfo(score.dtype).tiny)
        for score in task.scores
    ]
