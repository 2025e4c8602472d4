"""Refit: the kept columns are solved for anew, so that the output matrix gives what it gave with all its inputs.

Least squares on the calibration activations: with S the kept columns, W' = W H[:, S] (H[S, S])^-1 (OSSCAR, Meng et al.
2024; SlimGPT, Ling et al. 2024; the one-shot limit of ZipLM, Kurtic et al. 2023). It needs no bias.
"""

import torch

from stages.prune.activations import Inputs
from stages.prune.units import Module

READS = "inputs"


@torch.no_grad()
def update(module: Module, keep: torch.Tensor, inputs: Inputs) -> None:
    """Set the kept columns to the least-squares solution, the others to zero."""
    if len(keep) == module.units:
        return
    weight = inputs.linear.weight
    solve_columns(weight, module.columns(keep), inputs.hessian, weight.double() @ inputs.hessian)


def solve_columns(weight: torch.Tensor, kept: torch.Tensor, hessian: torch.Tensor, cross: torch.Tensor) -> None:
    """Set columns `kept` of `weight` to cross[:, kept] (hessian[kept, kept])^-1, the others to zero."""
    kept = kept.to(weight.device)
    factor = torch.linalg.cholesky(hessian[kept][:, kept])
    solution = torch.cholesky_solve(cross[:, kept].T, factor).T
    weight.zero_()
    weight[:, kept] = solution.to(weight.dtype)
