"""What the matrices of structures weight and rank should be, had they no zeros or no limit to their rank."""

from collections.abc import Iterator
from typing import ClassVar

import torch

from stages.prune.activations import Activations
from stages.prune.drift import fit_last_norm, undo_drift
from stages.prune.groups import InputGroup
from stages.prune.inputs import Inputs


class AsIs:
    """The matrices themselves."""

    needs_targets: ClassVar[bool] = False  # the dense model's residual stream beside the windows

    def aims(self, group: InputGroup, inputs: Inputs | None) -> Iterator[tuple[str, torch.Tensor]]:
        """Yield the name of each matrix of `group` and what it should be: (out, in), float64.

        `inputs` are the statistics of what they read, or None where neither criterion nor update needs them.
        """
        for name, linear in group.matrices.items():
            yield name, linear.weight.double()

    def finish(self, activations: Activations) -> None:
        """Change what comes after the last layer."""


class TowardsDense(AsIs):
    """What undoes the drift of the residual stream, as update realign of structure block does, by least squares.

    Read in the model as pruned so far: the solutions of GPTAQ (Li et al. 2025) and QEP (Arai & Ichikawa 2025).
    """

    needs_targets = True

    def aims(self, group: InputGroup, inputs: Inputs | None) -> Iterator[tuple[str, torch.Tensor]]:
        """Yield the output's solution for the stream after it, or those of the others for their own outputs."""
        assert inputs is not None, "it needs them"
        if inputs.linear is inputs.activations.output:
            solution = torch.cholesky_solve(inputs.aim.T, torch.linalg.cholesky(inputs.hessian)).T
            yield from dict.fromkeys(group.matrices, solution).items()
        else:
            factor = undo_drift(inputs)
            for name, linear in group.matrices.items():
                yield name, linear.weight.double() @ factor

    def finish(self, activations: Activations) -> None:
        """Set the weights of the last norm to the least-squares solution, each for its channel."""
        fit_last_norm(activations)
