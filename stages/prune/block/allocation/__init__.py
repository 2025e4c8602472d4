"""Allocation: how much each layer gives. One file each; its name is the value of `prune.allocation`."""

from abc import ABC, abstractmethod
from typing import ClassVar

import torch

from stages.prune.block.filling import fill
from stages.prune.block.task import Task
from stages.prune.choices import load


class Allocation(ABC):
    """How many units each module gives."""

    @abstractmethod
    def counts(self, task: Task) -> list[int]:
        """Return how many units each module of `task` gives; one that gives all is removed as a whole.

        Raises UserError when the ratio or the budget is out of reach.
        """


class RankedAllocation(Allocation):
    """An order of units: the modules give them by ascending keys."""

    pooled: ClassVar[bool] = True  # whether the layers share one budget under `ratio_of: groups`, or each has its own

    @abstractmethod
    def keys(self, task: Task) -> list[torch.Tensor]:
        """Return for every module of `task` one ascending float64 key per unit, in the order in which it gives them."""

    def counts(self, task: Task) -> list[int]:
        """Let the units go in the order of their keys."""
        return fill(task, self.keys(task), self.pooled)


def shares(task: Task) -> list[torch.Tensor]:
    """Return per module the share of its original units that is gone after its first, second, ... removal."""
    return [
        torch.arange(old.units - new.units + 1, old.units + 1, dtype=torch.float64) / old.units
        for old, new in zip(task.original, task.modules, strict=True)
    ]


def allocation(name: str) -> Allocation:
    """Return the allocation called `name`."""
    return load(Allocation, name, __name__)
