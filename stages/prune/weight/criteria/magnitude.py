"""Magnitude: small weights go (Han et al. 2015, section 3): |W_ij|."""

import torch

from stages.prune.inputs import Inputs
from stages.prune.weight.criteria import SingleWeightCriterion


class Magnitude(SingleWeightCriterion):
    needs = "nothing"

    def score(self, weight: torch.Tensor, inputs: Inputs | None, columns: slice) -> torch.Tensor:
        """Return |W_ij|."""
        return weight.abs()
