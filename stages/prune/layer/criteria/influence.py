"""Influence: a layer that hardly turns its input is worth little (ShortGPT, Men et al. 2024, eq. 1).

Block influence: 1 - the mean over tokens of the cosine between the layer's input and its output.
"""

import torch
from transformers import PreTrainedModel

from stages.prune.activations import block_influence
from stages.prune.layer.criteria import LayerCriterion
from stages.prune.params import PruneParams


class Influence(LayerCriterion):
    def score(
        self, model: PreTrainedModel, layers: list[int], windows: torch.Tensor, params: PruneParams
    ) -> torch.Tensor:
        """Return the block influence of `layers` on the calibration windows."""
        return block_influence(model, windows)[layers]
