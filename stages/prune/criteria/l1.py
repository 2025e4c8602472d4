"""L1: the sum of absolute weights of a unit's slice of each matrix (LLM-Pruner, Ma et al. 2023, its `l1` pruner)."""

import torch

from stages.prune.units import by_unit


def score(model, modules, windows, params) -> list[torch.Tensor]:
    """Return sum |w| over each unit's slice, per module a (matrices, units) tensor, accumulated in float32."""
    return [
        torch.stack([norm(linear.weight, module.units, dim) for linear, dim in module.matrices]) for module in modules
    ]


@torch.no_grad()
def norm(weight: torch.Tensor, units: int, dim: int) -> torch.Tensor:
    """Return the sum of absolute values of each unit's slice, shape (units,)."""
    view, others = by_unit(weight, units, dim)
    return torch.linalg.vector_norm(view, ord=1, dim=others, dtype=torch.float32)
