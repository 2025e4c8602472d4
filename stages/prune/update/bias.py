"""Bias: the mean of what the removed units put out becomes a bias of the output matrix (FLAP, An et al. 2024)."""

import torch
from torch import nn
from transformers import PreTrainedModel

from stages.common.errors import UserError
from stages.prune.activations import Inputs
from stages.prune.units import Module

READS = "inputs"


def prepare(model: PreTrainedModel) -> None:
    """Give every matrix of the layers a bias of zeros, as the config knows them all or none.

    Raises UserError for an architecture whose config has none.
    """
    if not hasattr(model.config, "mlp_bias"):
        raise UserError(
            f"prune.update = 'bias' is not allowed for {model.config.model_type}, which has no output biases; "
            "allowed: none, refit, realign"
        )
    for layer in model.model.layers:
        for linear in (each for each in layer.modules() if isinstance(each, nn.Linear) and each.bias is None):
            linear.bias = nn.Parameter(linear.weight.new_zeros(linear.out_features))
    model.config.attention_bias = model.config.mlp_bias = True


@torch.no_grad()
def update(module: Module, keep: torch.Tensor, inputs: Inputs) -> None:
    """Add W E[x] of the removed columns to the bias of the output matrix."""
    weight, bias, (mean, _) = inputs.linear.weight, inputs.linear.bias, inputs.moments
    assert bias is not None, "prepare gave it one"
    gone = torch.ones(weight.shape[1], dtype=torch.bool, device=weight.device)
    gone[module.columns(keep).to(weight.device)] = False
    bias.add_((weight[:, gone].double() @ mean[gone]).to(weight.dtype))
