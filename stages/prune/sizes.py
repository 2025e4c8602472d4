"""How much of a model is there."""

import torch
from torch import nn


def nonzero_parameters(model: nn.Module) -> int:
    """Return the number of parameters of a model, or a part of it, that are not zero; a tied one counts once."""
    return sum(int(torch.count_nonzero(parameter)) for parameter in model.parameters())
