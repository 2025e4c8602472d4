"""Criteria of structure weight: what a single weight is worth. One file each; its name is `prune.criterion`."""

from abc import ABC, abstractmethod
from typing import ClassVar, Literal

import torch

from stages.prune.choices import load
from stages.prune.inputs import Inputs


class SingleWeightCriterion(ABC):
    """The worth of single weights."""

    needs: ClassVar[Literal["nothing", "moments", "inverse_factor"]]  # which statistics of Inputs

    @abstractmethod
    def score(self, weight: torch.Tensor, inputs: Inputs | None, columns: slice) -> torch.Tensor:
        """Return the worth of every weight of those columns, in float64.

        `weight` is that part of the matrix as it is by now, shape (out, columns), float64; `inputs` are the statistics
        of all that the matrix reads, or None where neither criterion nor update needs them.
        """


def criterion(name: str) -> SingleWeightCriterion:
    """Return the criterion of weights called `name`."""
    return load(SingleWeightCriterion, name, __name__)
