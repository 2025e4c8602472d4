"""SVD: the matrix itself is to change least, ||W - W'||_F (Eckart & Young 1936)."""

import torch

from stages.prune.inputs import Inputs
from stages.prune.rank.criteria import RankCriterion


class Svd(RankCriterion):
    needs_inputs = False

    def metric(self, inputs: Inputs | None) -> torch.Tensor | None:
        """Return None."""
        return None
