"""Wanda: a weight is worth what it puts out: |W_ij| ||X_j||_2 (Sun et al. 2024, eq. 1).

||X_j|| is divided by the root of the token count, which changes no order.
"""

import torch

from stages.prune.inputs import Inputs
from stages.prune.weight.criteria import SingleWeightCriterion


class Wanda(SingleWeightCriterion):
    needs = "moments"

    def score(self, weight: torch.Tensor, inputs: Inputs | None, columns: slice) -> torch.Tensor:
        """Return |W_ij| times the root mean square of what column j reads."""
        assert inputs is not None, "it needs them"
        _, square = inputs.moments
        return weight.abs() * square[columns].sqrt()
