"""Realign: the product aims at what undoes the drift of the residual stream, as of structure block.

Of all matrices of a rank, the best for least squares towards any target is the truncated SVD, in the metric of the
inputs, of the solution without a limit (reduced-rank regression, Izenman 1975). So the matrices of low rank approximate
the solution of GPTAQ (Li et al. 2025) and QEP (Arai & Ichikawa 2025), and matrices that stay whole become it.
"""

import torch

from stages.prune.activations import Activations
from stages.prune.drift import aims_of, fit_last_norm
from stages.prune.groups import InputGroup
from stages.prune.inputs import Inputs
from stages.prune.rank.update import RankUpdate


class Realign(RankUpdate):
    needs_targets = True

    def aims(self, group: InputGroup, inputs: Inputs | None) -> dict[str, torch.Tensor]:
        """Return the least-squares solutions."""
        assert inputs is not None, "it needs them"
        return aims_of(group, inputs)

    def finish(self, activations: Activations) -> None:
        """Set the weights of the last norm to the least-squares solution, each for its channel."""
        fit_last_norm(activations)
