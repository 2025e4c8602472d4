"""GGUF, the file format of llama.cpp: what its tensors are called there, and how to read them back.

The rotary embedding of a Llama turns neighbouring components in GGUF and the two halves of a head in transformers, so
the rows of q_proj and k_proj stand in another order: those of `interleave`.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from stages.common.errors import UserError

OUTSIDE = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
INSIDE = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
ROTATED = ("attn_q", "attn_k")
INTERLEAVED_ARCHITECTURES = ("llama", "deci")  # the others keep transformers' order
ROPE_FACTORS = "rope_freqs.weight"  # computed from the config, no weight of the model


def gguf_name(name: str) -> str | None:
    """Return what GGUF calls the tensor `name` of a transformers state dict, None where it has no name for it."""
    module, _, kind = name.rpartition(".")
    if module in OUTSIDE:
        return f"{OUTSIDE[module]}.{kind}"
    layer, _, rest = module.removeprefix("model.layers.").partition(".")
    return f"blk.{layer}.{INSIDE[rest]}.{kind}" if module.startswith("model.layers.") and rest in INSIDE else None


def transformers_name(name: str) -> str | None:
    """Return the state dict's name of a GGUF tensor, None for one that `gguf_name` never returns."""
    module, _, kind = name.rpartition(".")
    for there, here in OUTSIDE.items():
        if here == module:
            return f"{there}.{kind}"
    layer, _, rest = module.removeprefix("blk.").partition(".")
    inside = next((there for there, here in INSIDE.items() if here == rest), None)
    return f"model.layers.{layer}.{inside}.{kind}" if module.startswith("blk.") and inside else None


def is_rotated(name: str, architecture: str) -> bool:
    """Return whether the rows of the GGUF tensor `name` stand in the interleaved order."""
    return architecture in INTERLEAVED_ARCHITECTURES and name.split(".")[-2] in ROTATED


def interleave(rows: torch.Tensor, head_dim: int) -> torch.Tensor:
    """Return `rows`, shape (heads * head_dim, ...), with each head's two halves taken in turns."""
    return rows.reshape(-1, 2, head_dim // 2, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)


def deinterleave(rows: torch.Tensor, head_dim: int) -> torch.Tensor:
    """Return what `interleave` was given."""
    return rows.reshape(-1, head_dim // 2, 2, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)


def open_gguf(file: Path) -> Any:
    """Return gguf-py's reader of `file`; UserError, naming it, where it is truncated or no GGUF at all."""
    from gguf import GGUFReader

    try:
        return GGUFReader(file)
    except Exception as error:  # whatever its parser stumbles over: ValueError, IndexError, KeyError, OverflowError
        raise UserError(f"{file} is truncated or corrupt ({error}); export it again") from None


def gguf_weights(file: Path) -> dict[str, torch.Tensor]:
    """Return the tensors of `file` under transformers' names and in its order, quantised ones dequantised, float32."""
    from gguf.quants import dequantize

    reader = open_gguf(file)
    architecture = metadata(reader, "general.architecture", file)
    head_dim = metadata(reader, f"{architecture}.attention.key_length", file)
    weights = {}
    for tensor in reader.tensors:
        if tensor.name == ROPE_FACTORS:
            continue
        name = transformers_name(tensor.name)
        if name is None:
            raise UserError(f"{file}: tensor {tensor.name} is none of the models that are exported here")
        values = torch.from_numpy(np.array(dequantize(tensor.data, tensor.tensor_type), dtype=np.float32))
        weights[name] = deinterleave(values, head_dim) if is_rotated(tensor.name, architecture) else values
    return weights


def metadata(reader: Any, key: str, file: Path) -> Any:
    """Return one value of a file's metadata; UserError, naming the file, where it has none."""
    field = reader.get_field(key)
    if field is None:
        raise UserError(f"{file} has no {key} among its metadata; export it again")
    return field.contents()
