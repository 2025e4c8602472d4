"""None: each matrix is approximated as it is."""

import torch

from stages.prune.groups import InputGroup
from stages.prune.inputs import Inputs
from stages.prune.rank.update import RankUpdate


class NoUpdate(RankUpdate):
    def aims(self, group: InputGroup, inputs: Inputs | None) -> dict[str, torch.Tensor]:
        """Return the matrices in float64."""
        return {name: linear.weight.double() for name, linear in group.matrices.items()}
