"""Realign: refit towards the dense model, so that the residual stream behind each module is what it was.

Refit reproduces each matrix's output on inputs that have already drifted. With T what the output must be to undo that
drift, the least-squares solution is W' = (T'X)[:, S] (X'X)[S, S]^-1, damped towards W (the asymmetric calibration of
GPTAQ, Li et al. 2025, and QEP, Arai & Ichikawa 2025, for pruning). Modules that lose no unit are realigned too. With
`prune.iterative_steps` above 1 each step's dense model is what the step before left.
"""

import torch

from stages.prune.activations import Inputs
from stages.prune.units import Module
from stages.prune.update.refit import solve_columns

READS = "targets"


@torch.no_grad()
def update(module: Module, keep: torch.Tensor, inputs: Inputs) -> None:
    """Set the kept columns to the least-squares solution, the others to zero."""
    solve_columns(inputs.linear.weight, module.columns(keep), inputs.hessian, inputs.aim)
