"""L2: the sum of squared weights of a unit's slice of each matrix (LLM-Pruner, Ma et al. 2023, its `l2` pruner)."""

import torch

from stages.common.paging import each_in_memory
from stages.prune.units import power_sums_by_unit


def score(model, modules, windows, params) -> list[torch.Tensor]:
    """Return sum w^2 over each unit's slice, per module a (matrices, units) tensor, accumulated in float32."""
    return [
        torch.stack([power_sums_by_unit(linear.weight, module.units, dim, 2) for linear, dim in module.matrices])
        for module in each_in_memory(model, modules)
    ]
