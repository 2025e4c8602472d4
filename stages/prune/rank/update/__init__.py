"""Updates of structure rank: what the product of the thin matrices aims at. One file each; `prune.update`."""

from abc import ABC, abstractmethod
from typing import ClassVar

import torch

from stages.prune.activations import Activations
from stages.prune.choices import load
from stages.prune.groups import InputGroup
from stages.prune.inputs import Inputs


class RankUpdate(ABC):
    """The matrices to approximate."""

    needs_targets: ClassVar[bool] = False  # the dense model's residual stream beside the windows

    @abstractmethod
    def aims(self, group: InputGroup, inputs: Inputs | None) -> dict[str, torch.Tensor]:
        """Return by name what each matrix of `group` should be, were its rank not limited: (out, in), float64.

        `inputs` are the statistics of what they read, or None where neither criterion nor update needs them.
        """

    def finish(self, activations: Activations) -> None:
        """Change what comes after the last layer."""


def update(name: str) -> RankUpdate:
    """Return the update of ranks called `name`."""
    return load(RankUpdate, name, __name__)
