"""Random: every module gives a random share (the third random pruning of Li et al. 2022).

The other two are the random criterion with the allocations global (free over the model) and uniform (ratio per layer).
"""

import torch

from stages.prune.block.allocation import RankedAllocation, shares
from stages.prune.block.task import Task


class Random(RankedAllocation):
    def keys(self, task: Task) -> list[torch.Tensor]:
        """Return the share gone of each module over a relative share drawn from [0.5, 1.5) by `prune.seed`."""
        relative = 0.5 + torch.rand(len(task.modules), generator=torch.Generator().manual_seed(task.params.seed))
        return [share / each for share, each in zip(shares(task), relative.double(), strict=True)]
