"""Uniform: every module gives the same share of its units."""

import torch

from stages.prune.block.allocation import RankedAllocation, shares
from stages.prune.block.task import Task


class Uniform(RankedAllocation):
    pooled = False

    def keys(self, task: Task) -> list[torch.Tensor]:
        """Return for each unit the share of its module that is gone once it and all before it are removed."""
        return shares(task)
