"""Criteria of structure rank: what a low rank must not change. One file each; its name is `prune.criterion`."""

from abc import ABC, abstractmethod
from typing import ClassVar

import torch

from stages.prune.choices import load
from stages.prune.inputs import Inputs


class RankCriterion(ABC):
    """The loss of W' in place of W, tr((W - W') M (W - W')'), which its singular values of W S, M = S S', add up to."""

    needs_inputs: ClassVar[bool]

    @abstractmethod
    def metric(self, inputs: Inputs | None) -> torch.Tensor | None:
        """Return M, shape (in, in), float64; None for the identity.

        `inputs` are the statistics of what the matrix reads, or None where neither criterion nor update needs them.
        """


def criterion(name: str) -> RankCriterion:
    """Return the criterion of ranks called `name`."""
    return load(RankCriterion, name, __name__)
