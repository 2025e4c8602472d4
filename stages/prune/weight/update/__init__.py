"""Updates of structure weight: how a matrix loses weights. One file each; its name is the value of `prune.update`."""

from abc import ABC, abstractmethod
from typing import ClassVar, Literal

import torch

from stages.prune.aims import AsIs
from stages.prune.choices import load
from stages.prune.inputs import Inputs
from stages.prune.weight.masks import Choose


class WeightUpdate(AsIs, ABC):
    """The way from a matrix to its sparse one."""

    needs: ClassVar[Literal["nothing", "inverse_factor"]]  # which statistics of Inputs
    # Whether a layer's matrices are all read before the first of them is cut, or each in the layer as pruned so far.
    reads_dense_layers: ClassVar[bool] = False

    @abstractmethod
    def remove(self, weight: torch.Tensor, choose: Choose, group: int, inputs: Inputs | None) -> torch.Tensor:
        """Return the matrix with the chosen weights at zero and the others made up for them.

        `weight` is one of `aims`, float64, shape (out, in). `choose(part, columns)` returns which weights of those
        columns, given as they are by now, go: a mask of the shape of `part`. Each column is asked for once, from left
        to right, in whole groups of `group` columns: m of the pattern n:m, else 1. `inputs` are the statistics of what
        the matrix reads, or None where neither criterion nor update needs them.
        """


def update(name: str) -> WeightUpdate:
    """Return the update of weights called `name`."""
    return load(WeightUpdate, name, __name__)
