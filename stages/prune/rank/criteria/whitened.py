"""Whitened: what the matrix puts out is to change least, ||X W^T - X W'^T||_F (SVD-LLM, Wang et al. 2024, section 3.1).

M = H = X'X / n + D, whose Cholesky factor S whitens the inputs: a singular value of W S is what its component puts out.
"""

import torch

from stages.prune.inputs import Inputs
from stages.prune.rank.criteria import RankCriterion


class Whitened(RankCriterion):
    needs_inputs = True

    def metric(self, inputs: Inputs | None) -> torch.Tensor | None:
        """Return H."""
        assert inputs is not None, "it needs them"
        return inputs.hessian
