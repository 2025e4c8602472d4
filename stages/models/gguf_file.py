"""GGUF, the file format of llama.cpp: what its tensors are called there, and how to read them back.

The rotary embedding of a Llama turns neighbouring components in GGUF and the two halves of a head in transformers, so
the rows of queries and keys are in another order: those of `interleave`.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from stages.common.errors import UserError
from stages.models.architecture import Architecture
from stages.models.gguf_header import Header, Tensor, read_header

ROTATED = ("attn_q", "attn_k")
INTERLEAVED_ARCHITECTURES = ("llama", "deci")  # the others keep transformers' order
FLOATS = {"F32": np.float32, "F16": np.float16}  # numpy has no bfloat16
DEQUANTISED = (
    *FLOATS, "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL",
)  # fmt: skip
ROPE_FACTORS = "rope_freqs.weight"  # computed from the config, no weight of the model


def names(family: Architecture) -> tuple[dict[str, str], dict[str, str]]:
    """Return what GGUF calls the modules of a model of `family`: those outside the layers, and those inside one."""
    outside = {family.embeddings: "token_embd", family.last_norm: "output_norm", family.head: "output"}
    attention, mlp = family.attention, family.mlp
    inside = {
        attention.norm: "attn_norm",
        f"{attention.module}.{attention.query}": "attn_q",
        f"{attention.module}.{attention.key}": "attn_k",
        f"{attention.module}.{attention.value}": "attn_v",
        f"{attention.module}.{attention.output}": "attn_output",
        mlp.norm: "ffn_norm",
        f"{mlp.module}.{mlp.gate}": "ffn_gate",
        f"{mlp.module}.{mlp.up}": "ffn_up",
        f"{mlp.module}.{mlp.output}": "ffn_down",
    }
    if attention.query_norm:
        inside |= {
            f"{attention.module}.{attention.query_norm}": "attn_q_norm",
            f"{attention.module}.{attention.key_norm}": "attn_k_norm",
        }
    return outside, inside


def gguf_name(name: str, family: Architecture) -> str | None:
    """Return what GGUF calls the tensor `name` of a transformers state dict, None where it has no name for it."""
    outside, inside = names(family)
    module, _, kind = name.rpartition(".")
    if module in outside:
        return f"{outside[module]}.{kind}"
    layer, _, rest = module.removeprefix(f"{family.layers}.").partition(".")
    return f"blk.{layer}.{inside[rest]}.{kind}" if module.startswith(family.layers) and rest in inside else None


def transformers_name(name: str, family: Architecture) -> str | None:
    """Return the state dict's name of a GGUF tensor, None for one that `gguf_name` never returns."""
    outside, inside = names(family)
    module, _, kind = name.rpartition(".")
    for there, here in outside.items():
        if here == module:
            return f"{there}.{kind}"
    layer, _, rest = module.removeprefix("blk.").partition(".")
    found = next((there for there, here in inside.items() if here == rest), None)
    return f"{family.layers}.{layer}.{found}.{kind}" if module.startswith("blk.") and found else None


def is_rotated(name: str, architecture: str) -> bool:
    """Return whether the rows of the GGUF tensor `name` are in the interleaved order."""
    return architecture in INTERLEAVED_ARCHITECTURES and name.split(".")[-2] in ROTATED


def interleave(rows: torch.Tensor, head_dim: int) -> torch.Tensor:
    """Return `rows`, shape (heads * head_dim, ...), with each head's two halves taken in turns."""
    return rows.reshape(-1, 2, head_dim // 2, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)


def deinterleave(rows: torch.Tensor, head_dim: int) -> torch.Tensor:
    """Return what `interleave` was given."""
    return rows.reshape(-1, head_dim // 2, 2, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)


@dataclass(frozen=True)
class Packed:
    """A tensor that is still in its GGUF file; `[...]`, by which transformers asks for one, dequantises all of it."""

    file: Path
    stored: Tensor
    head_dim: int | None  # of a tensor whose rows are interleaved
    dtype = torch.float32

    @property
    def shape(self) -> tuple[int, ...]:
        """The tensor's shape in the model."""
        return self.stored.shape

    def __getitem__(self, _) -> torch.Tensor:
        """Return the tensor in float32; UserError if the file ends before it does."""
        from gguf import GGMLQuantizationType
        from gguf.quants import dequantize

        content = np.fromfile(self.file, np.uint8, self.stored.nbytes, offset=self.stored.start)
        if content.nbytes != self.stored.nbytes:
            raise UserError(f"{self.file} is truncated; fetch or export it again")
        rows = content.reshape(*self.shape[:-1], -1)
        kind = GGMLQuantizationType[self.stored.kind]
        rows = rows.view(FLOATS[self.stored.kind]) if self.stored.kind in FLOATS else rows
        values = torch.from_numpy(np.array(dequantize(rows, kind), dtype=np.float32))
        return values if self.head_dim is None else deinterleave(values, self.head_dim)


def gguf_weights(file: Path, family: Architecture) -> dict[str, Packed]:
    """Return the tensors of `file` under the names that `family` has for them and in its order, still to be read.

    Raises UserError, naming the file, for one that is damaged, or holds a tensor that the family lacks, or of a type
    that cannot be dequantised.
    """
    header = read_header(file)
    architecture = architecture_of(header, file)
    head_dim = head_dimension(header, file)
    weights = {}
    for name, tensor in header.tensors.items():
        if name == ROPE_FACTORS:
            continue
        target = transformers_name(name, family)
        if target is None:
            raise UserError(f"{file}: tensor {name} belongs to none of the supported models")
        if tensor.kind not in DEQUANTISED:
            raise UserError(f"{file}: tensor {name} is {tensor.kind}; expected one of: {', '.join(DEQUANTISED)}")
        weights[target] = Packed(file, tensor, head_dim if is_rotated(name, architecture) else None)
    return weights


def architecture_of(header: Header, file: Path) -> str:
    """Return llama.cpp's name for the architecture, with which the keys of its metadata begin."""
    return str(metadata(header, "general.architecture", file))


def head_dimension(header: Header, file: Path) -> int:
    """Return the size of one attention head, which files leave out where it is hidden_size / heads."""
    if f"{architecture_of(header, file)}.attention.key_length" in header.metadata:
        size = count(header, "attention.key_length", file)
    else:
        size = count(header, "embedding_length", file) // count(header, "attention.head_count", file)
    if size < 2 or size % 2:
        raise UserError(f"{file}: heads of {size}; expected an even number of components")
    return size


def count(header: Header, key: str, file: Path, default: int | None = None) -> int:
    """Return a positive integer of the architecture's metadata, `default` where it is absent."""
    key = f"{architecture_of(header, file)}.{key}"
    value = metadata(header, key, file) if default is None else header.metadata.get(key, default)
    if not isinstance(value, int) or value < 1:
        raise UserError(f"{file}: {key} = {value!r}; expected a positive integer, the same for every layer")
    return value


def metadata(header: Header, key: str, file: Path) -> Any:
    """Return one value of a file's metadata; UserError, naming the file, where it has none."""
    if key not in header.metadata:
        raise UserError(f"{file} has no {key} among its metadata; fetch or export it again")
    return header.metadata[key]
