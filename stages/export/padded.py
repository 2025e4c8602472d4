"""Pad narrower layers with zero units: a plain model that every engine loads, with the same outputs.

A zero MLP channel outputs silu(0) * 0 = 0. A zero head has equal scores everywhere, averages values that are zero, and
meets zero columns of the output matrix. Nothing is saved: the layers are as wide as the widest.
"""

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from transformers import PreTrainedModel

from stages.common.errors import UserError
from stages.export.gguf_model import layer_widths
from stages.models.architecture import Attention, Mlp, path
from stages.models.parts import Parts, plain_class

RAGGED = (  # config keys that a plain model lacks or sets differently
    "per_layer_config",
    "allow_global_per_layer_attribute_access",
    "auto_map",
    "model_type",
    "architectures",
    "output_bias",
    "head_matrices",
    "head_counts",
    "skipped_modules",
)


@torch.no_grad()
def pad(model: PreTrainedModel) -> PreTrainedModel:
    """Return a model of the plain class with one width in all layers and the outputs of `model`.

    Raises UserError if no number of heads that the class accepts holds all layers, or it lacks one of their biases.
    """
    groups, group_size, mlp = padded_widths(model)
    parts = Parts(model)
    family, head_dim, plain_type = parts.family, parts.head_dim, plain_class(parts.family)
    assert isinstance(family.mlp, Mlp), "a mixture of experts is refused before"
    settings = {key: value for key, value in model.config.to_dict().items() if key not in RAGGED}
    settings |= {
        "num_attention_heads": groups * group_size,
        "num_key_value_heads": groups,
        family.mlp.width_key: mlp,
        "head_dim": head_dim,
    }
    tensors = model.state_dict()
    for index, layer in enumerate(parts.layers):
        prefix = f"{family.layers}.{index}."
        heads, kv_heads, _ = layer_widths(model)[index]
        part = {name: tensors[prefix + name] for name in layer.state_dict()}
        tensors |= {prefix + name: each for name, each in pad_mlp(part, mlp, family.mlp).items()}
        if not kv_heads:
            continue
        shape = (kv_heads, heads // kv_heads, head_dim)
        attention = pad_attention(part, shape, groups, group_size, family.attention)
        tensors |= {prefix + name: each for name, each in attention.items()}
    with torch.device("meta"):
        plain = plain_type(plain_type.config_class(**settings))
    extra = sorted(tensors.keys() - plain.state_dict().keys())
    if extra:
        raise UserError(
            f"{extra[0]} has no place in a {family.model_class}; set prune.update "
            "to one that adds no bias, or export safetensors"
        )
    for name, absent in plain.state_dict().items():  # of an attention or an MLP that is gone: zeros add nothing
        if name not in tensors:
            tensors[name] = torch.zeros(absent.shape, dtype=model.dtype, device=model.device)
    plain.load_state_dict(tensors, assign=True)
    plain.tie_weights()
    Parts(plain).rotary, Parts(plain).embedding_scale = parts.rotary, parts.embedding_scale
    plain.generation_config = model.generation_config
    return plain.eval()


def padded_widths(model: PreTrainedModel) -> tuple[int, int, int]:
    """Return the fewest KV groups, query heads per group and MLP channels that hold every layer.

    transformers wants a number of query heads that divides hidden_size: there may be more of them than any layer has.
    """
    widths, hidden = layer_widths(model), model.config.hidden_size
    groups, group_size = max(kv for _, kv, _ in widths), max(heads // kv for heads, kv, _ in widths if kv)
    fitting = [
        (heads, kv) for heads in range(groups * group_size, hidden + 1) if hidden % heads == 0
        for kv in range(groups, heads // group_size + 1) if heads % kv == 0
    ]  # fmt: skip
    parts = Parts(model)
    if parts.heads_fill:
        fitting = [(heads, kv) for heads, kv in fitting if heads * parts.head_dim == hidden]
    if parts.family.heads_fill_hidden_size:  # each with keys and values of its own
        fitting = [(hidden // parts.head_dim,) * 2]
    if not fitting:
        raise UserError(
            f"{query_of(model)}: {groups} groups of {group_size} heads fit no "
            f"number of heads that divides hidden_size = {hidden}; set prune.layout = uniform, or export gguf"
        )
    heads, kv = min(fitting)
    return kv, heads // kv, max(mlp for *_, mlp in widths)


def query_of(model: PreTrainedModel) -> str:
    """Return the name of the query matrices in messages."""
    family = Parts(model).family
    return f"{family.layers}.*.{family.attention.module}.{family.attention.query}.weight"


def pad_mlp(tensors: Mapping[str, torch.Tensor], width: int, names: Mlp) -> dict[str, torch.Tensor]:
    """Return the layer's MLP tensors with zero channels up to `width`."""
    padded = {}
    for name, tensor in tensors.items():
        if name.startswith(tuple(f"{path(names.module, each)}." for each in names.inputs)):
            parts = tensor.chunk(2) if names.gate == names.up else [tensor]
            padded[name] = torch.cat([lengthen(part, 0, width) for part in parts])
        elif name == path(names.module, names.output, "weight"):
            padded[name] = lengthen(tensor, 1, width)
    return padded


def pad_attention(
    tensors: Mapping[str, torch.Tensor], shape: tuple[int, int, int], groups: int, group_size: int, names: Attention
) -> dict[str, torch.Tensor]:
    """Return the layer's attention tensors with zero heads up to `groups` KV groups of `group_size` query heads.

    shape: the layer's own (KV groups, query heads per group, head_dim). New heads follow those of their group.
    """

    def padded_queries(rows: torch.Tensor) -> torch.Tensor:
        return lengthen(lengthen(rows.unflatten(0, shape), 1, group_size), 0, groups).flatten(0, 2)

    padded = {}
    for name, tensor in tensors.items():
        if names.stacked and name.startswith(f"{names.module}.{names.query}."):
            queries, *others = tensor.split([math.prod(shape), shape[0] * shape[2], shape[0] * shape[2]])
            padded[name] = torch.cat(
                [padded_queries(queries), *(lengthen(part, 0, groups * shape[2]) for part in others)]
            )
        elif name.startswith((f"{names.module}.{names.key}.", f"{names.module}.{names.value}.")):
            padded[name] = lengthen(tensor, 0, groups * shape[2] * names.fused)
        elif name.startswith(f"{names.module}.{names.query}."):
            padded[name] = padded_queries(tensor)
        elif name == f"{names.module}.{names.output}.weight":
            heads = lengthen(lengthen(tensor.unflatten(1, shape), 2, group_size), 1, groups)
            padded[name] = heads.flatten(1, 3)
    if names.unit_norms != "shared":
        pad_norms(padded, tensors, shape, (groups, group_size), names)
    return padded


def pad_norms(
    padded: dict[str, torch.Tensor],
    tensors: Mapping[str, torch.Tensor],
    shape: tuple[int, int, int],
    units: tuple[int, int],
    names: Attention,
) -> None:
    """Add the norms of queries and keys, whose weights lie along the heads, to `padded`.

    Where one root mean square divides all heads, zero heads make it smaller: the matrices grow and the weights shrink
    by as much, so that it is what it was and eps counts for as much.
    """
    groups, group_size = units
    for matrix, norm, sizes in (
        (names.query, names.query_norm, ((shape[0], shape[1]), (groups, group_size))),
        (names.key, names.key_norm, ((shape[0], 1), (groups, 1))),
    ):
        name = f"{names.module}.{norm}.weight"
        if name not in tensors:
            continue
        weight = tensors[name]
        heads = weight.view(*sizes[0], shape[2])
        heads = lengthen(lengthen(heads, 1, sizes[1][1]), 0, groups)
        heads = heads.reshape(-1, *weight.shape[1:])
        if names.unit_norms == "together":
            grown = heads.numel() / weight.numel()
            heads = heads / grown**0.5
            for kind in ("weight", "bias"):
                rows = f"{names.module}.{matrix}.{kind}"
                if rows in padded:
                    padded[rows] = padded[rows] * grown**0.5
        padded[name] = heads


def lengthen(tensor: torch.Tensor, dim: int, size: int) -> torch.Tensor:
    """Return `tensor` with zeros after it along `dim`, up to `size`."""
    return F.pad(tensor, [0, 0] * (tensor.ndim - 1 - dim) + [0, size - tensor.shape[dim]]).contiguous()
