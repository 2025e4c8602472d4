"""GGUF, the file format of llama.cpp: what its tensors are called there, and how to read them back.

The rotary embedding of a Llama turns neighbouring components in GGUF and the two halves of a head in transformers, so
the rows of queries and keys are in another order: those of `interleave`.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from stages.common.errors import UserError
from stages.models.architecture import Architecture, Experts
from stages.models.gguf_header import Header, Tensor, read_header

ROTATED = ("attn_q", "attn_k")
INTERLEAVED_ARCHITECTURES = ("llama", "deci", "granite")  # the others keep transformers' order
FLOATS = {"F32": np.float32, "F16": np.float16}  # numpy has no bfloat16
DEQUANTISED = (
    *FLOATS, "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL",
)  # fmt: skip
ROPE_FACTORS = "rope_freqs.weight"  # computed from the config, no weight of the model


@cache
def names(family: Architecture) -> dict[str, str]:
    """Return what GGUF calls the modules of `family`, those of a layer as in layer 0, by gguf's own table.

    A module that llama.cpp's architecture for the family lacks is left out.
    """
    from gguf import MODEL_ARCH_NAMES, get_tensor_name_map

    attention, mlp = family.attention, family.mlp
    if family.gguf is None or isinstance(mlp, Experts):
        return {}
    matrices = (*attention.inputs, attention.output, attention.query_norm, attention.key_norm)
    norms = (attention.norm, mlp.norm, attention.after, mlp.after)
    inside = [
        *(name for name in norms if name),
        *(f"{attention.module}.{name}" for name in matrices if name),
        *(f"{mlp.module}.{name}" for name in (*mlp.inputs, mlp.output)),
    ]
    modules = [family.embeddings, family.last_norm, family.head, *(f"{family.layers}.0.{name}" for name in inside)]
    architectures = {name: number for number, name in MODEL_ARCH_NAMES.items()}
    table = get_tensor_name_map(architectures[family.gguf], 1)
    return {module: name for module in modules if (name := table.get_name(module))}


def gguf_name(name: str, family: Architecture) -> str | None:
    """Return what GGUF calls the tensor `name` of a transformers state dict, None where it has no name for it."""
    module, _, kind = name.rpartition(".")
    return renamed(module, kind, (f"{family.layers}.", "blk."), names(family))


def transformers_name(name: str, family: Architecture) -> str | None:
    """Return the state dict's name of a GGUF tensor, None for one that `gguf_name` never returns."""
    module, _, kind = name.rpartition(".")
    return renamed(module, kind, ("blk.", f"{family.layers}."), {there: here for here, there in names(family).items()})


def renamed(module: str, kind: str, prefixes: tuple[str, str], modules: dict[str, str]) -> str | None:
    """Return the name of tensor `kind` of `module` in the other scheme; `prefixes`: of layers, here and there."""
    layer = ""
    if module.startswith(prefixes[0]):
        layer, _, rest = module.removeprefix(prefixes[0]).partition(".")
        module = f"{prefixes[0]}0.{rest}"
    if module not in modules:
        return None
    return f"{modules[module].replace(f'{prefixes[1]}0.', f'{prefixes[1]}{layer}.')}.{kind}"


def is_rotated(name: str, architecture: str) -> bool:
    """Return whether the rows of the GGUF tensor `name` are in the interleaved order."""
    return architecture in INTERLEAVED_ARCHITECTURES and name.split(".")[-2] in ROTATED


def interleave(rows: torch.Tensor, head_dim: int) -> torch.Tensor:
    """Return `rows`, shape (heads * head_dim, ...), with each head's two halves taken in turns."""
    return rows.reshape(-1, 2, head_dim // 2, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)


def deinterleave(rows: torch.Tensor, head_dim: int) -> torch.Tensor:
    """Undo `interleave`."""
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
