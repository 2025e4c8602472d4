"""Influence: layers that change their input least give most, by a softmax (MoDeGPT, Lin et al. 2025).

Its global sparsity allocation: shares are as softmax(-BI / EPSILON), with the block influence BI of a layer 1 - the
mean cosine of its input and output (ShortGPT, Men et al. 2024, eq. 1).
"""

import torch

from stages.prune.activations import block_influence
from stages.prune.block.allocation import RankedAllocation, shares
from stages.prune.block.task import Task

EPSILON = 0.2


class Influence(RankedAllocation):
    def keys(self, task: Task) -> list[torch.Tensor]:
        """Return the share gone of each module over the relative share of its layer."""
        relative = torch.softmax(-block_influence(task.model, task.windows) / EPSILON, 0)
        return [share / relative[module.layer] for share, module in zip(shares(task), task.modules, strict=True)]
