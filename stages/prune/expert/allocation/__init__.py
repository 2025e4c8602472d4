"""Allocation of structure expert: how many experts each layer gives. One file each; its name is `prune.allocation`."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch

from stages.prune.choices import load


@dataclass(frozen=True)
class Quota:
    """What the pruned layers have to give; all experts are of one size."""

    original: list[int]  # experts of each layer before the first step
    gone: list[int]  # of these, removed by the steps before
    least: int  # experts that each layer keeps: as many as the router chooses for a token
    ratio: float  # share of the experts that is to be gone after this step
    total: float | None  # experts that are to be gone then, under `ratio_of: parameters`; else None


class Allocation(ABC):
    """How many experts each layer gives."""

    @abstractmethod
    def counts(self, quota: Quota, scores: list[torch.Tensor]) -> list[int]:
        """Return how many experts each layer gives in this step.

        scores[i] has one number for each expert that layer i has left. A count beyond what a layer can give is left to
        the caller to refuse.
        """


def share(experts: int, ratio: float) -> int:
    """Return how many of `experts` go by LLM-Pruner's rule, which keeps int(experts * (1 - ratio)) of them."""
    return experts - int(experts * (1 - ratio))


def allocation(name: str) -> Allocation:
    """Return the allocation of experts called `name`."""
    return load(Allocation, name, __name__)
