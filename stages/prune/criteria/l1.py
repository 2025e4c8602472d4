"""L1: the sum of absolute weights (Li et al. 2017, section 3.1, of a filter).

Here of a unit's slice of each matrix (LLM-Pruner, Ma et al. 2023, its `l1` pruner).
"""

import torch

from stages.common.paging import each_in_memory
from stages.prune.units import power_sums_by_unit


def score(model, modules, windows, params) -> list[torch.Tensor]:
    """Return sum |w| over each unit's slice, per module a (matrices, units) tensor, accumulated in float32."""
    return [
        torch.stack([power_sums_by_unit(linear.weight, module.units, dim, 1) for linear, dim in module.matrices])
        for module in each_in_memory(model, modules)
    ]
