"""None: the kept weights stay as they are."""

import torch

from stages.prune.inputs import Inputs
from stages.prune.masks import Choose

READS = False


def remove(weight: torch.Tensor, choose: Choose, group: int, inputs: Inputs) -> torch.Tensor:
    """Return `weight` with all that goes chosen at once and set to zero."""
    return weight.masked_fill(choose(weight, slice(0, weight.shape[1])), 0)
