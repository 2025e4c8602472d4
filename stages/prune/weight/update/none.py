"""None: the kept weights stay as they are."""

import torch

from stages.prune.inputs import Inputs
from stages.prune.weight.masks import Choose
from stages.prune.weight.update import WeightUpdate


class NoUpdate(WeightUpdate):
    needs = "nothing"

    def remove(self, weight: torch.Tensor, choose: Choose, group: int, inputs: Inputs | None) -> torch.Tensor:
        """Return `weight` with all weights to remove chosen at once and set to zero."""
        return weight.masked_fill(choose(weight, slice(0, weight.shape[1])), 0)
