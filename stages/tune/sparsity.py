"""Recovery of a sparse model keeps its zeros: a weight that pruning set to zero is not trained.

With M the mask of a matrix's weights that are not zero, an adapter adds M * (B A) instead of B A, while training and
when it is merged (SQFT's sparse adapters, Munoz et al. 2024). PEFT has no such mask, so a note in the adapter's folder
says that one is needed.
"""

import json
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from peft import PeftModel
from peft.tuners.lora import Linear
from torch import nn
from transformers import PreTrainedModel

from stages.common.errors import UserError
from stages.models.sharding import is_sharded

NOTE = """
## Not for PEFT alone

Pruning set weights of the base to zero, and this adapter was trained to leave them zero: what it adds to a matrix W is
(W != 0) * scale * (B A). PEFT adds scale * (B A) instead, which gives another model, and a dense one. The whole model
is in models/merged; to merge the adapter yourself, multiply what it adds by the mask.
"""
MASK = {"espalier_mask": "W != 0, of the base: multiply what the adapter adds to W by it"}  # in adapter_config.json
FEW = 0.01  # a smaller share of zeros is chance, rounding or a dead unit


def mask_of(linear: nn.Linear) -> torch.Tensor | None:
    """Return which weights are not zero, None for a matrix that was not made sparse.

    Raises UserError for a sparse matrix of which this process has a share only.
    """
    weight: Any = linear.weight.detach()
    sharded = is_sharded(weight)
    mask = (weight.to_local() if sharded else weight) != 0
    if not len(mask) or mask.double().mean() >= 1 - FEW:
        return None
    if sharded:
        raise UserError("run.sharded = true does not go with a model that has weights of zero; expected false")
    return mask


def mask_adapters(model: PeftModel) -> None:
    """Let the adapters of sparse matrices leave their zeros alone."""
    for layer in adapted_layers(model):
        mask = mask_of(layer.get_base_layer())
        if mask is not None:
            layer.get_delta_weight = partial(masked_delta, layer.get_delta_weight, mask)  # which merging adds
            layer.forward = partial(forward, layer)


def say_masked(model: PeftModel, folder: Path) -> None:
    """Write into the files of the adapter in `folder`, not merged yet, that it needs a mask, if it does."""
    if all(mask_of(layer.get_base_layer()) is None for layer in adapted_layers(model)):
        return
    with (folder / "README.md").open("a", encoding="utf-8") as card:
        card.write(NOTE)
    file = folder / "adapter_config.json"
    config = json.loads(file.read_text(encoding="utf-8")) | MASK
    file.write_text(json.dumps(config, indent=2, sort_keys=True), encoding="utf-8")


def adapted_layers(model: PeftModel) -> list[Any]:
    """Return the matrices that have an adapter."""
    return [module for module in model.modules() if isinstance(module, Linear)]


def masked_delta(delta, mask: torch.Tensor, adapter: str) -> torch.Tensor:
    """Return the adapter's change of a matrix, at the weights that are not zero."""
    return delta(adapter) * mask


def forward(layer: Linear, x: torch.Tensor) -> torch.Tensor:
    """Return the output of the matrix with its masked adapter for `x`, with PEFT's dropout and dtypes."""
    output = layer.base_layer(x)
    (adapter,) = layer.active_adapters
    delta = layer.get_delta_weight(adapter)
    return output + F.linear(layer.lora_dropout[adapter](x.to(delta.dtype)), delta).to(output.dtype)


def keep_zeros(model: PreTrainedModel) -> None:
    """Give the zeros of sparse matrices no gradient, in full fine-tuning."""
    for linear in [module for module in model.get_decoder().modules() if isinstance(module, nn.Linear)]:
        mask = mask_of(linear)
        if mask is not None:
            linear.weight.register_hook(mask.mul)
