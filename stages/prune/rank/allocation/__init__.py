"""Allocations of structure rank: which rank each matrix keeps. One file each; its name is `prune.allocation`."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch

from stages.prune.choices import load


@dataclass(frozen=True)
class Size:
    """The shape of a matrix."""

    out: int
    width: int

    @property
    def dense(self) -> int:
        """The weights of the whole matrix."""
        return self.out * self.width

    @property
    def unit(self) -> int:
        """The weights of the two thin ones for each unit of their rank."""
        return self.out + self.width

    @property
    def most(self) -> int:
        """The highest rank at which the thin ones have fewer weights than the whole."""
        return (self.dense - 1) // self.unit

    def kept(self, rank: int | None) -> int:
        """Return the weights that are left; a matrix of no `rank` stays whole."""
        return self.dense if rank is None else rank * self.unit


class RankAllocation(ABC):
    """Which rank each matrix keeps."""

    needs_values: ClassVar[bool] = False  # singular values of all matrices of the dense model

    @abstractmethod
    def ranks(self, sizes: list[Size], kept: float, values: list[torch.Tensor]) -> list[int | None]:
        """Return the rank of every matrix, None for one that stays whole, such that `kept` weights are left of all.

        It is met to within a unit of rank, or missed where it is out of reach. values[i] are the squared singular
        values of matrix i, descending; an empty list where the allocation does not need them.
        """


def allocation(name: str) -> RankAllocation:
    """Return the allocation of ranks called `name`."""
    return load(RankAllocation, name, __name__)
