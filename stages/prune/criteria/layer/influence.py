"""Influence: a layer that hardly turns its input is worth little (ShortGPT, Men et al. 2024, eq. 1).

Block influence: 1 - the mean over tokens of the cosine between the layer's input and its output.
"""

import torch

from stages.prune.activations import block_influence


def score(model, layers: list[int], windows: torch.Tensor, params) -> torch.Tensor:
    """Return the block influence of `layers` on the calibration windows."""
    return block_influence(model, windows)[layers]
