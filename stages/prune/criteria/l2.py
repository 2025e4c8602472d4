"""L2: the sum of squared weights of a unit's slice of each matrix (LLM-Pruner, Ma et al. 2023, its `l2` pruner)."""

import torch

from stages.prune.units import by_unit


def score(model, modules, windows, params) -> list[torch.Tensor]:
    """Return sum w^2 over each unit's slice, per module a (matrices, units) tensor, accumulated in float32."""
    return [
        torch.stack([norm(linear.weight, module.units, dim) for linear, dim in module.matrices]) for module in modules
    ]


@torch.no_grad()
def norm(weight: torch.Tensor, units: int, dim: int) -> torch.Tensor:
    """Return the squared Euclidean norm of each unit's slice, shape (units,)."""
    view, others = by_unit(weight, units, dim)
    return torch.linalg.vector_norm(view, ord=2, dim=others, dtype=torch.float32).square()
