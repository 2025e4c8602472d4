"""OBS: the optimal brain surgeon's error (Hassibi & Stork 1993, eq. 5) of a unit (ZipLM, Kurtic et al. 2023, alg. 1).

With H = X'X / n of the output matrix's inputs, removing unit g and letting all other weights make up for it as well as
they can costs 1/2 tr(W_g [(H^-1)_gg]^-1 W_g'). The unit of least cost goes, W and H^-1 follow, and so on to the last.
"""

import torch

from stages.models.prunable import Prunable
from stages.prune.criteria import ActivationCriterion
from stages.prune.inputs import Inputs

STEPS = 64  # removals with an update each; a module of more units loses several at a time
DENSE = 0.8  # a smaller share of columns that are still there, and the rest are dropped from what is updated


class Obs(ActivationCriterion):
    @torch.no_grad()
    def score_inputs(self, module: Prunable, inputs: Inputs) -> torch.Tensor:
        """Return the error once a unit and all removed before it are gone."""
        return removal_errors(inputs.linear.weight.double(), inputs.hessian, module.units)[None]


def removal_errors(weight: torch.Tensor, hessian: torch.Tensor, units: int) -> torch.Tensor:
    """Return 1/2 tr(dW H dW') at the removal of each unit, shape (units,), rising in the order of removal.

    `weight` has shape (out, in), `hessian` (in, in); a unit is in/units neighbouring columns.
    """
    # Transposed, so that a unit's weights are neighbours in memory.
    weight, inverse = weight.T.contiguous(), torch.cholesky_inverse(torch.linalg.cholesky(hessian))
    width = len(weight) // units
    here = torch.arange(units, device=weight.device)  # the units whose rows `weight` and `inverse` hold
    left = torch.ones_like(here, dtype=torch.bool)
    errors, total = weight.new_zeros(units), 0.0
    at_once = -(-units // STEPS)
    while left.any():
        rows = torch.arange(len(weight), device=weight.device).view(-1, width)
        candidates = left.nonzero().squeeze(1)
        costs = unit_costs(weight, inverse, rows[candidates])
        order = costs.argsort(stable=True)[:at_once]
        for chosen in order.tolist():
            total += costs[chosen].clamp_min(0).item()
            errors[here[candidates[chosen]]] = total
        left[candidates[order]] = False
        gone = rows[candidates[order]].flatten()
        solved = divide(inverse[gone], inverse[gone][:, gone])
        weight.addmm_(solved.T, weight[gone], alpha=-1)
        inverse.addmm_(solved.T, inverse[gone], alpha=-1)
        if left.sum() < DENSE * len(left):
            stay = rows[left].flatten()
            weight, inverse, here, left = weight[stay], inverse[stay][:, stay], here[left], left[left]
    return errors


def unit_costs(weight: torch.Tensor, inverse: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """Return 1/2 tr(W_g [(H^-1)_gg]^-1 W_g') for each row g of `rows`, shape (candidates,); `weight` is transposed."""
    if rows.shape[1] == 1:  # |W_p|^2 / 2 (H^-1)_pp: ten times as fast as a solve for each channel
        return (0.5 * torch.linalg.vector_norm(weight, dim=1).square() / inverse.diagonal())[rows[:, 0]]
    blocks = inverse[rows[:, :, None], rows[:, None, :]]
    parts = weight[rows]  # (candidates, width, out)
    return 0.5 * (parts * divide(parts, blocks)).sum((1, 2))


def divide(parts: torch.Tensor, blocks: torch.Tensor) -> torch.Tensor:
    """Return blocks^-1 parts, for one positive definite block or a batch of them.

    By Cholesky factors: with two threads oneMKL's LU solver refuses its own row swaps at some sizes (DLASWP).
    """
    return torch.cholesky_solve(parts, torch.linalg.cholesky(blocks))
