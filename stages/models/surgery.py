"""Remove units from a model: cut the tensors and rebuild the model."""

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from stages.models.mixture import Mixture
from stages.models.paging import hand_over
from stages.models.parts import Parts, plain_class, pruned_class
from stages.models.prunable import BLOCK, Prunable


@torch.no_grad()
def keep_units(module: Prunable, keep: torch.Tensor) -> None:
    """Cut every matrix of `module` down to the units `keep`, ascending, within the memory that it has.

    The experts of a layer are cut one after another, to the same number of units each: the last cuts their tensors.
    """
    if module.mixture is not None:
        keep_channels(module, module.mixture, keep)
        return
    for linear, dim in module.linears:
        units, kept = module.units, keep
        if dim == 0 and module.sections:  # a unit's rows are apart
            units = linear.out_features
            kept = module.by_unit(torch.arange(units), 0).view(module.units, -1)[keep.cpu()].flatten().sort().values
        linear.weight = nn.Parameter(compact(linear.weight, units, dim, kept), requires_grad=False)
        if dim == 0 and linear.bias is not None:
            linear.bias = nn.Parameter(compact(linear.bias, units, 0, kept), requires_grad=False)
        linear.out_features, linear.in_features = linear.weight.shape
    for norm in module.norms:
        norm.weight = nn.Parameter(compact(norm.weight, module.units, 0, keep), requires_grad=False)
    module.set_counts(len(keep))


def keep_channels(module: Prunable, mixture: Mixture, keep: torch.Tensor) -> None:
    """Move the channels `keep` of one expert to the front; the last expert drops the others of all."""
    if len(keep) == module.units:
        return
    for matrix, dim in module.matrices:
        weight = matrix.weight
        kept = weight.index_select(dim, keep.to(weight.device))
        weight.zero_().narrow(dim, 0, len(keep)).copy_(kept)
    if module.expert == mixture.experts - 1:
        mixture.narrow(len(keep))


def compact(tensor: torch.Tensor, units: int, dim: int, keep: torch.Tensor) -> torch.Tensor:
    """Return `tensor` with only the units `keep`, ascending, along dimension `dim`, at the beginning of its memory.

    What is kept moves up, a block that fits the processor's cache at a time, and never past what is still to be read.
    To map new memory for it would take several times as long as to move it.
    """
    memory, end = tensor.view(-1), 0
    for block, index in blocks_of_units(tensor, units, dim, keep):
        shape = [*block.shape[:dim], len(index), *block.shape[dim + 1 :]]
        start, end = end, end + math.prod(shape)
        here = block.storage_offset() - tensor.storage_offset()
        room, index = memory[start:end].view(shape), index.to(tensor.device)
        if end <= here:
            torch.index_select(block, dim, index, out=room)
        elif start < here or room.shape != block.shape:  # the block lies in part of its own room
            room.copy_(block.index_select(dim, index))
    return memory[:end].view(-1, *tensor.shape[1:]) if dim == 0 else memory[:end].view(len(tensor), -1)


def blocks_of_units(
    tensor: torch.Tensor, units: int, dim: int, keep: torch.Tensor
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield `tensor` in blocks, views with the units as dimension `dim`, and which of a block's units stay."""
    if dim == 0:
        rows = tensor.view(units, -1)
        for part in keep.split(max(1, BLOCK // rows.shape[1])):
            first, last = int(part[0]), int(part[-1])
            yield rows[first : last + 1], part - first
    else:
        for block in tensor.view(len(tensor), units, -1).split(max(1, BLOCK // tensor.shape[1])):
            yield block, keep


def rebuild(model: PreTrainedModel) -> PreTrainedModel:
    """Return a model of the class and config that fit the cut weights, sharing them.

    One width in all layers gives the plain class of the base (LlamaForCausalLM, Qwen2ForCausalLM, ...); different
    widths, and what the plain class cannot say, its pruned class.
    """
    parts, settings = Parts(model), cut_settings(model)
    widths, plain, pruned = parts.widths, plain_class(parts.family), pruned_class(parts.family)
    same = all(each == widths[0] and all(each.values()) for each in widths)
    if same:
        settings |= widths[0]
    refused = parts.family.heads_divide_hidden_size and settings["hidden_size"] % settings["num_attention_heads"]
    if parts.heads_fill:
        refused = settings["num_attention_heads"] * settings["head_dim"] != settings["hidden_size"]
    with torch.device("meta"):
        if same and not refused and not settings.get("output_bias") and not settings.get("ranks"):
            rebuilt = plain(plain.config_class(**settings))
        else:
            if parts.family.heads_fill_hidden_size:
                full = settings["hidden_size"] // settings["head_dim"]  # what each layer is first built with
                settings |= {"num_attention_heads": full, "num_key_value_heads": full}
                settings |= {"head_matrices": parts.family.head_matrices, "head_counts": parts.family.head_counts}
            settings["allow_global_per_layer_attribute_access"] = True
            settings["per_layer_config"] = per_layer_config(settings, widths)
            if not all(all(each.values()) for each in widths):
                settings["skipped_modules"] = parts.family.skipped_modules
            rebuilt = pruned(pruned.config_class(**settings))
    hand_over(model, rebuilt)
    rebuilt.load_state_dict(model.state_dict(), assign=True)
    rebuilt.tie_weights()
    Parts(rebuilt).rotary, Parts(rebuilt).embedding_scale = parts.rotary, parts.embedding_scale
    rebuilt.generation_config = model.generation_config
    return rebuilt.eval()


def per_layer_config(settings: dict[str, Any], widths: list[dict[str, int]]) -> dict[int, dict[str, Any]]:
    """Return by layer the widths that differ from `settings`, and which half of the layer to skip, of width 0."""
    entries: dict[int, dict[str, Any]] = {}
    for i, each in enumerate(widths):
        own: dict[str, Any] = {key: width for key, width in each.items() if width and width != settings[key]}
        lacking = {"attention" if key.endswith("_heads") else "mlp" for key, width in each.items() if not width}
        entries[i] = own | ({"skip": sorted(lacking)} if lacking else {})
    return {i: entry for i, entry in entries.items() if entry}


def cut_settings(model: PreTrainedModel) -> dict[str, Any]:
    """Return the config's settings with those that all layers share as the weights have them."""
    dropped = ("per_layer_config", "skipped_modules", "auto_map", "model_type", "architectures")
    settings = {key: value for key, value in model.config.to_dict().items() if key not in dropped}
    parts = Parts(model)
    settings["head_dim"] = parts.head_dim
    settings.setdefault("num_key_value_heads", settings["num_attention_heads"])
    settings["hidden_size"] = parts.embeddings.weight.shape[1]
    settings["num_hidden_layers"] = len(parts.layers)
    return settings
