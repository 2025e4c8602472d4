"""First: the first of the pruned layers go, whatever they do."""

import torch


def score(model, layers: list[int], windows: torch.Tensor, params) -> torch.Tensor:
    """Return the depth of `layers`."""
    return torch.tensor(layers, dtype=torch.float64)
