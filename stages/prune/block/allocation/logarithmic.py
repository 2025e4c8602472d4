"""Logarithmic: the share rises with the logarithm of the depth (SlimGPT, Ling et al. 2024), as errors add up.

Its incremental pruning ratio: r_i = r_0 + (r_last - r_0) log(i + 1) / log(layers), here with r_last = 2 r_0; the ratio
sets r_0.
"""

import math

import torch

from stages.prune.block.allocation import RankedAllocation, shares
from stages.prune.block.task import Task


class Logarithmic(RankedAllocation):
    def keys(self, task: Task) -> list[torch.Tensor]:
        """Return the share gone of each module over the relative share of its layer."""
        layers = sorted({module.layer for module in task.original})
        depth = {layer: math.log(i + 1) / math.log(max(2, len(layers))) for i, layer in enumerate(layers)}
        return [share / (1 + depth[module.layer]) for share, module in zip(shares(task), task.modules, strict=True)]
