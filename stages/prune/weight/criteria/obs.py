"""OBS: the rise of the output's squared error when a weight is removed and the columns after it make up for it.

W_ij^2 / U_jj^2 with U the upper Cholesky factor of H^-1 = U'U: U_jj^2 is [H^-1]_jj once the columns before j are fixed
(SparseGPT, Frantar & Alistarh 2023, eq. 3 and algorithm 1; Hassibi & Stork 1993, eq. 5). Meant for update `obs`, which
does make up.
"""

import torch

from stages.prune.inputs import Inputs
from stages.prune.weight.criteria import SingleWeightCriterion


class Obs(SingleWeightCriterion):
    needs = "inverse_factor"

    def score(self, weight: torch.Tensor, inputs: Inputs | None, columns: slice) -> torch.Tensor:
        """Return W_ij^2 / U_jj^2."""
        assert inputs is not None, "it needs them"
        return (weight / inputs.inverse_factor.diagonal()[columns]).square()
