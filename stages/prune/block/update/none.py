"""None: the kept weights stay as they are."""

import torch

from stages.prune.block.update import Update
from stages.prune.inputs import Inputs
from stages.prune.units import Prunable


class NoUpdate(Update):
    needs = "nothing"

    def update(self, module: Prunable, keep: torch.Tensor, inputs: Inputs) -> None:
        """Change nothing."""
