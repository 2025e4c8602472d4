"""Channels first: MLPs give alike, and attention gives half the share that they give.

It counts where the modules share a budget (`ratio_of: parameters`, `prune.budget`); otherwise each gives its own share.
Parameter for parameter, the heads of a real model with few key/value heads are worth more than its channels, and least
squares cannot make up for them: docs/methods-measured.md has the measurements.
"""

import torch

from stages.prune.block.allocation import RankedAllocation, shares
from stages.prune.block.task import Task

ATTENTION = 0.5  # attention's share of the MLPs' share


class ChannelsFirst(RankedAllocation):
    pooled = False

    def keys(self, task: Task) -> list[torch.Tensor]:
        """Return the share gone of each module over the relative share of its kind."""
        pairs = zip(shares(task), task.modules, strict=True)
        return [share / ATTENTION if module.kind == "attention" else share for share, module in pairs]
