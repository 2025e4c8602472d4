"""Realign: OBS from matrices that undo the drift of the residual stream, as of structures block and rank.

Each matrix is read in the model as pruned so far, and becomes the least-squares solution of GPTAQ (Li et al. 2025) and
QEP (Arai & Ichikawa 2025) before the first weight goes: its output the dense model's, its inputs the drifted ones. The
sweep of `obs` then removes what is worth least for that, and the columns after it make up for it.
"""

import torch

from stages.prune.activations import Activations
from stages.prune.drift import aims_of, fit_last_norm
from stages.prune.groups import InputGroup
from stages.prune.inputs import Inputs
from stages.prune.weight.update.obs import Obs


class Realign(Obs):
    reads_dense_layers = False
    needs_targets = True

    def aims(self, group: InputGroup, inputs: Inputs | None) -> dict[str, torch.Tensor]:
        """Return the least-squares solutions."""
        assert inputs is not None, "it needs them"
        return aims_of(group, inputs)

    def finish(self, activations: Activations) -> None:
        """Set the weights of the last norm to the least-squares solution, each for its channel."""
        fit_last_norm(activations)
