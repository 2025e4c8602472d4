"""Criteria of structure layer: what a decoder layer is worth. One file each; its name is `prune.criterion`."""

from abc import ABC, abstractmethod

import torch
from transformers import PreTrainedModel

from stages.prune.choices import load
from stages.prune.params import PruneParams


class LayerCriterion(ABC):
    """The worth of whole layers."""

    @abstractmethod
    def score(
        self, model: PreTrainedModel, layers: list[int], windows: torch.Tensor, params: PruneParams
    ) -> torch.Tensor:
        """Return the worth of each of `layers`, indices into those of `model`, shape (len(layers),), float64.

        `windows` are the calibration tokens, shape (count, length).
        """


def criterion(name: str) -> LayerCriterion:
    """Return the criterion of layers called `name`."""
    return load(LayerCriterion, name, __name__)
