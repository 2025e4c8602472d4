"""OBS: column by column, later columns compensate for the removed weights (SparseGPT, Frantar & Alistarh 2023, alg. 1).

With U the upper Cholesky factor of the inverse Hessian, H^-1 = U'U, and e = W_j / U_jj where a weight of column j goes
and 0 where it stays: W_k -= e U_jk for all k >= j, the optimal brain surgeon's update with the inverse Hessian of the
columns not yet passed. What goes is chosen as the sweep arrives, CHOSEN_TOGETHER columns at a time or each group of a
pattern n:m; the columns after a block of UPDATED_TOGETHER are updated once a block. H is damped by 1 % of its mean
diagonal. It is read for all matrices of a layer while that is dense, as in the authors' code:
docs/methods-measured.md has the measurements.
"""

import torch

from stages.prune.inputs import Inputs
from stages.prune.weight.masks import Choose
from stages.prune.weight.update import WeightUpdate

CHOSEN_TOGETHER = 128  # as in the authors' code
UPDATED_TOGETHER = 32  # divides it


class Obs(WeightUpdate):
    needs = "inverse_factor"
    reads_dense_layers = True

    def remove(self, weight: torch.Tensor, choose: Choose, group: int, inputs: Inputs | None) -> torch.Tensor:
        """Return `weight` pruned and compensated from the first column to the last."""
        assert inputs is not None, "it needs them"
        weight, factor = weight.clone(), inputs.inverse_factor
        width = weight.shape[1]
        chosen_together = group if group > 1 else CHOSEN_TOGETHER
        block = max(UPDATED_TOGETHER // group * group, group)
        for start in range(0, width, block):
            end = min(start + block, width)
            errors = weight.new_zeros(len(weight), end - start)
            for j in range(start, end):
                if j % chosen_together == 0:
                    columns = slice(j, min(j + chosen_together, width))
                    goes = choose(weight[:, columns], columns)
                gone = goes[:, j - columns.start]
                error = torch.where(gone, weight[:, j] / factor[j, j], 0)
                weight[:, j:end].addr_(error, factor[j, j:end], alpha=-1)
                weight[gone, j] = 0  # which rounding may have missed
                errors[:, j - start] = error
            weight[:, end:].addmm_(errors, factor[start:end, end:], alpha=-1)
        return weight
