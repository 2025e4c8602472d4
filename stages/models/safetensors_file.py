"""Read tensors of a safetensors file, each when it is asked for and into memory of its own.

The library maps the file, whose pages then stay resident as long as any tensor does, or reads twice: into a buffer, and
from there into the tensor, which takes two and a half times as long as reading once.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import torch

from stages.common.errors import UserError

DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip


@dataclass(frozen=True)
class Unread:
    """A tensor that is still in its file; `[...]`, by which transformers asks for one, reads all of it."""

    file: Path
    start: int  # its first byte
    shape: tuple[int, ...]
    dtype: torch.dtype

    def __getitem__(self, _) -> torch.Tensor:
        """Return the tensor; UserError if the file ends before it does."""
        tensor = torch.empty(self.shape, dtype=self.dtype)
        with self.file.open("rb") as stream:
            stream.seek(self.start)
            content = tensor.view(-1).view(torch.uint8).numpy()
            if stream.readinto(content) != tensor.nbytes:  # type: ignore[arg-type]
                raise UserError(f"{self.file} is truncated; fetch or make it again")
        return tensor


def unread(file: Path) -> dict[str, Unread]:
    """Return the tensors of `file` by name; UserError for a number format that no model here has."""
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        header = json.loads(stream.read(length))
    tensors = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        if entry["dtype"] not in DTYPES:
            raise UserError(f"{file}: {name} is of type {entry['dtype']}; expected one of: {', '.join(DTYPES)}")
        start = 8 + length + entry["data_offsets"][0]
        tensors[name] = Unread(file, start, tuple(entry["shape"]), DTYPES[entry["dtype"]])
    return tensors
