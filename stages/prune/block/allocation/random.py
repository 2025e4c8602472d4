"""Random: every module gives a random share (the third random pruning of Li et al. 2022).

The other two are the random criterion with the allocations global (free over the model) and uniform (ratio per layer).
"""

import torch

from stages.prune.block.allocation import RankedAllocation, shares
from stages.prune.block.task import Task


class Random(RankedAllocation):
    def keys(self, task: Task) -> list[torch.Tensor]:
        """Return the share gone of each module over a relative share drawn from [0.5, 1.5) by `prune.seed`."""
        places = [(module.layer, module.kind) for module in task.modules]
        distinct = list(dict.fromkeys(places))  # the experts of a layer give alike
        drawn = 0.5 + torch.rand(len(distinct), generator=torch.Generator().manual_seed(task.params.seed))
        relative = dict(zip(distinct, drawn.double(), strict=True))
        return [share / relative[place] for share, place in zip(shares(task), places, strict=True)]
