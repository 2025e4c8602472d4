"""Updates: what the kept weights do to make up for the removed ones. One file each; its name is `prune.update`."""

from abc import ABC, abstractmethod
from typing import ClassVar, Literal

import torch
from transformers import PreTrainedModel

from stages.models.prunable import Prunable
from stages.prune.activations import Activations
from stages.prune.choices import load
from stages.prune.inputs import Inputs


class Update(ABC):
    """Changes of the kept weights."""

    # Of the windows on their way: nothing, the statistics of a module's inputs, or also what its output must be for the
    # dense model's residual stream.
    needs: ClassVar[Literal["nothing", "inputs", "targets"]] = "inputs"

    @abstractmethod
    def update(self, module: Prunable, keep: torch.Tensor, inputs: Inputs) -> None:
        """Change the module's output matrix in place while all its units are still there.

        Those not in `keep` are cut afterwards. `inputs` are the statistics of what the matrix reads in the model as
        pruned so far.
        """

    def prepare(self, model: PreTrainedModel) -> None:
        """Make room in the model for parameters that the update adds, before units are counted."""

    def receive(self, module: Prunable, inputs: Inputs) -> None:
        """Change a module before its units are scored."""

    def finish(self, activations: Activations) -> None:
        """Change what comes after the last layer."""


def update(name: str) -> Update:
    """Return the update called `name`."""
    return load(Update, name, __name__)
