"""OBS: the rise of the output's squared error when a weight goes and the columns behind it make up for it.

W_ij^2 / U_jj^2 with U the upper Cholesky factor of H^-1 = U'U: U_jj^2 is [H^-1]_jj once the columns before j are fixed
(SparseGPT, Frantar & Alistarh 2023, eq. 3 and algorithm 1; Hassibi & Stork 1993, eq. 5). Meant for update `obs`, which
does make up.
"""

import torch

from stages.prune.inputs import Inputs

READS = True


def score(weight: torch.Tensor, inputs: Inputs, columns: slice) -> torch.Tensor:
    """Return W_ij^2 / U_jj^2."""
    return (weight / inputs.inverse_factor.diagonal()[columns]).square()
