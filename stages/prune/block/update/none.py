"""None: the kept weights stay as they are."""

import torch

from stages.models.prunable import Prunable
from stages.prune.block.update import Update
from stages.prune.inputs import Inputs


class NoUpdate(Update):
    needs = "nothing"

    def update(self, module: Prunable, keep: torch.Tensor, inputs: Inputs) -> None:
        """Change nothing."""
