"""Global: all layers compete; the units that are worth least for their size go first.

Raw scores of different modules are not comparable: a key/value head is hundreds of channels, and a module whose weights
are merely larger is not more important. So each module is taken to be worth its parameters, shared out among its units
by score: worth per parameter is then the score relative to its module's mean. FLAP (An et al. 2024)
standardises per module for the same reason.
"""

import torch

from stages.prune.block.allocation import RankedAllocation
from stages.prune.block.task import Task


class Global(RankedAllocation):
    def keys(self, task: Task) -> list[torch.Tensor]:
        """Return each unit's score relative to the mean of its module, in ascending order."""
        return [score.sort().values / score.mean().clamp_min(torch.finfo(score.dtype).tiny) for score in task.scores]
