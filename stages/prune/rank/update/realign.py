"""Realign: the product aims at what undoes the drift of the residual stream, as of structure block.

Of all matrices of a rank, the best for least squares towards any target is the truncated SVD, in the metric of the
inputs, of the solution without a limit (reduced-rank regression, Izenman 1975). So the matrices of low rank approximate
the solution of GPTAQ (Li et al. 2025) and QEP (Arai & Ichikawa 2025), and matrices that stay whole become it.
"""

import torch

from stages.prune.activations import Activations
from stages.prune.drift import fit_last_norm, undo_drift
from stages.prune.groups import InputGroup
from stages.prune.inputs import Inputs
from stages.prune.rank.update import RankUpdate


class Realign(RankUpdate):
    needs_targets = True

    @torch.no_grad()
    def aims(self, group: InputGroup, inputs: Inputs | None) -> dict[str, torch.Tensor]:
        """Return the least-squares solutions: the output's for the stream, of the others for their own outputs."""
        assert inputs is not None, "it needs them"
        here = inputs.activations
        if inputs.linear is here.output:
            solution = torch.cholesky_solve(inputs.aim.T, torch.linalg.cholesky(inputs.hessian)).T
            return dict.fromkeys(group.matrices, solution)
        factor = undo_drift(here, group)
        return {name: linear.weight.double() @ factor for name, linear in group.matrices.items()}

    def finish(self, activations: Activations) -> None:
        """Set the weights of the last norm to the least-squares solution, each for its channel."""
        fit_last_norm(activations)
