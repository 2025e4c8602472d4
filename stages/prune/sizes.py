"""The size of a model."""

import torch
from torch import nn
from transformers import PreTrainedModel

from stages.models.paging import parts_in_memory


def nonzero_parameters(part: nn.Module) -> int:
    """Return the number of parameters of a part of a model that are not zero."""
    return sum(int(torch.count_nonzero(parameter)) for parameter in part.parameters())


def nonzero_in_model(model: PreTrainedModel) -> int:
    """Return the number of parameters of a model that are not zero; a tied one counts once."""
    return sum(nonzero_parameters(part) for part in parts_in_memory(model))


def size_metrics(model: PreTrainedModel, before: int, prunable: int, specified: float) -> dict[str, float]:
    """Return how much of `before` parameters is left, and how much is gone of all and of the `prunable` ones."""
    after = model.num_parameters()
    return {
        "parameters_before": before,
        "parameters": after,
        "parameters_kept": after / before,
        "parameters_nonzero": nonzero_in_model(model),
        "ratio_specified": specified,
        "ratio_actual": 1 - after / before,
        "ratio_in_pruned_layers": (before - after) / prunable,
    }
