"""Refit: the kept columns are solved for again, so that the output matrix gives what it gave with all its inputs.

Least squares on the calibration activations: with S the kept columns, W' = W H[:, S] (H[S, S])^-1: eq. 2 of SparseGPT
(Frantar & Alistarh 2023) with one mask for all rows, as for units in OSSCAR (Meng et al. 2024) and SlimGPT (Ling et al.
2024). It needs no bias.
"""

import torch

from stages.models.prunable import Prunable
from stages.prune.block.update import Update
from stages.prune.inputs import Inputs


class Refit(Update):
    @torch.no_grad()
    def update(self, module: Prunable, keep: torch.Tensor, inputs: Inputs) -> None:
        """Set the kept columns to the least-squares solution, the others to zero."""
        if len(keep) == module.units:
            return
        weight, hessian = inputs.linear.weight, inputs.hessian
        kept = module.columns(keep).to(weight.device)
        gone = torch.ones(len(hessian), dtype=torch.bool, device=weight.device).index_fill_(0, kept, False)
        # W H[:, S] is W[:, S] H[S, S] and what the others add: the first part would be multiplied to be divided again.
        lost = weight[:, gone].double() @ hessian[gone][:, kept]
        set_columns(weight, kept, weight[:, kept] + divided(lost, hessian, kept))


def divided(cross: torch.Tensor, hessian: torch.Tensor, kept: torch.Tensor) -> torch.Tensor:
    """Return cross (hessian[kept, kept])^-1, shape (out, kept) as `cross`."""
    return torch.cholesky_solve(cross.T, torch.linalg.cholesky(hessian[kept][:, kept])).T


def set_columns(weight: torch.Tensor, kept: torch.Tensor, solution: torch.Tensor) -> None:
    """Set columns `kept` of `weight` to `solution`, the others to zero."""
    weight.zero_()
    weight[:, kept] = solution.to(weight.dtype)
