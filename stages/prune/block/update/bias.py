"""Bias: the mean of what the removed units put out becomes a bias of the output matrix.

FLAP's baseline bias compensation (An et al. 2024): b' = b + W_:,gone E[x_gone].
"""

import torch
from torch import nn
from transformers import PreTrainedModel

from stages.models.paging import bring_in
from stages.models.parts import Parts
from stages.models.prunable import Prunable
from stages.prune.block.update import Update
from stages.prune.inputs import Inputs


class Bias(Update):
    def prepare(self, model: PreTrainedModel) -> None:
        """Give the output matrices a bias of zeros.

        Where the family's config knows biases for all matrices or none, all get one and the model keeps its plain
        class. Other configs know none for the outputs: `output_bias` names those that the pruned class adds one to.
        """
        parts = Parts(model)
        known = parts.family.bias_keys
        for layer in parts.layers:
            bring_in(layer)
            outputs = [parts.attention(layer).output, parts.mlp(layer).output]
            for linear in (each for each in (layer.modules() if known else outputs) if isinstance(each, nn.Linear)):
                if linear.bias is None:
                    linear.bias = nn.Parameter(linear.weight.new_zeros(linear.out_features))
        for key in known:
            setattr(model.config, key, True)
        if not known and not parts.family.biased:
            model.config.output_bias = parts.family.outputs

    @torch.no_grad()
    def update(self, module: Prunable, keep: torch.Tensor, inputs: Inputs) -> None:
        """Add W E[x] of the removed columns to the bias of the output matrix."""
        weight, bias, (mean, _) = inputs.linear.weight, inputs.linear.bias, inputs.moments
        assert bias is not None, "prepare gave it one"
        gone = torch.ones(weight.shape[1], dtype=torch.bool, device=weight.device)
        gone[module.columns(keep).to(weight.device)] = False
        bias.add_((weight[:, gone].double() @ mean[gone]).to(weight.dtype))
