"""The LoRA adapter: add it, name what it trains, save it, merge it."""

import warnings
from functools import partial
from pathlib import Path
from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import Linear
from torch import nn
from transformers import PreTrainedModel

from stages.common.errors import UserError
from stages.models.modeling_pruned import LowRank
from stages.models.parts import family_of
from stages.tune.dropout import Dropout
from stages.tune.params import TuneParams
from stages.tune.sparsity import adapted_layers, mask_adapters, say_masked


def prepare(model: PreTrainedModel, params: TuneParams) -> PeftModel:
    """Freeze `model` and add a LoRA adapter in float32, which changes nothing until trained (Hu et al. 2021).

    Its random half is drawn from the global seed. Raises UserError for a target that names no linear layer.
    """
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=params.lora_rank,
        lora_alpha=params.lora_alpha,
        lora_dropout=params.lora_dropout,
        target_modules=targets(model, params.target_modules),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # PEFT asks transformers by a name that it has given up
        adapted = get_peft_model(model, config)
    for layer in adapted_layers(adapted):
        if params.lora_dropout:
            layer.lora_dropout.update({name: Dropout(params.lora_dropout) for name in layer.lora_dropout})
        layer.forward = partial(forward, layer)
    mask_adapters(adapted)
    return adapted


def forward(layer: Linear, x: torch.Tensor) -> torch.Tensor:
    """Return the output of the matrix with its adapter for `x`: PEFT's sum, in less memory.

    PEFT makes the adapter's output, a scaled one and a sum; here one product adds to the matrix's output in place.
    """
    output = layer.base_layer(x)
    (adapter,) = layer.active_adapters
    low: Any = layer.lora_A[adapter]
    high: Any = layer.lora_B[adapter].weight
    narrow = low(layer.lora_dropout[adapter](x if torch.is_autocast_enabled(x.device.type) else x.to(high.dtype)))
    if narrow.dtype != output.dtype:  # a half-precision model whose adapter computes in float32
        return output + (layer.scaling[adapter] * F.linear(narrow, high)).to(output.dtype)
    product = narrow.flatten(0, -2), high.to(narrow.dtype).T
    output.view(-1, output.shape[-1]).addmm_(*product, alpha=layer.scaling[adapter])
    return output


def targets(model: PreTrainedModel, chosen: Literal["all-linear"] | list[str]) -> list[str]:
    """Return the names of the linear layers to adapt: those `chosen`, or all but the head, as PEFT's word means.

    Raises UserError for a name of no linear layer of the model that an adapter can be merged into.
    """
    tied = model.get_output_embeddings() if model.config.tie_word_embeddings else None
    places: dict[str, list[str]] = {}  # of the linear layers; two thin ones have the name of their product
    thin = {id(half) for module in model.modules() if isinstance(module, LowRank) for half in module}
    for place, module in model.named_modules():
        if isinstance(module, nn.Linear) and module is not tied:
            places.setdefault(place.split(".")[-2 if id(module) in thin else -1], []).append(place)
    if chosen == "all-linear":
        family = family_of(model.config)
        chosen = [name for name in places if name in family.linears and name != family.head]
    unknown = [target for target in chosen if target not in places]
    if unknown:
        raise UserError(
            f"tune.target_modules = {chosen}: {', '.join(unknown)} is not a linear layer of this model; "
            f"expected one of: {', '.join(places)}"
        )
    if not thin:
        return chosen
    return [place for name in chosen for place in places[name]]  # a name alone would be that of the product too


def trained(model: PeftModel) -> PreTrainedModel:
    """Return the causal language model that the adapter sits in."""
    return cast(PreTrainedModel, model.get_base_model())


def save_adapter(model: PeftModel, base: Path, folder: Path) -> None:
    """Write the adapter as a PEFT folder for `base`, always with the same bytes."""
    trained(model).config._name_or_path = str(base)  # what PEFT's model card names
    config = cast(LoraConfig, model.peft_config["default"])
    config.base_model_name_or_path = str(base)
    # A set inside PEFT, whose order differs from process to process.
    config.target_modules = sorted(config.target_modules or [])
    # Embeddings are never trained here; "auto" would ask the hub whether they were resized.
    model.save_pretrained(str(folder), save_embedding_layers=False)
    say_masked(model, folder)


def merge(model: PeftModel) -> PreTrainedModel:
    """Return the base model with the adapter added to its weights, in their dtype."""
    return model.merge_and_unload()
