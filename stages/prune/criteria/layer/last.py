"""Last: the last of the pruned layers go, and the first n stay (LLM-Pruner's layer-wise pruning, Ma et al. 2023)."""

import torch


def score(model, layers: list[int], windows: torch.Tensor, params) -> torch.Tensor:
    """Return the depth of `layers` from behind."""
    return -torch.tensor(layers, dtype=torch.float64)
