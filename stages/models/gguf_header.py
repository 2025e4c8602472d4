"""Read the header of a GGUF file, and check every size and count in it against the length of the file.

gguf-py and transformers believe what a header says: a count of 10^8 in a file of 49 bytes keeps them busy for minutes.
Layout: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

import mmap
import struct
from dataclasses import dataclass, field, replace
from math import prod
from pathlib import Path
from typing import Any

from stages.common.errors import UserError

MAGIC, VERSIONS = b"GGUF", (2, 3)
STRING, ARRAY = 8, 9
NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}  # by value type
ALIGNMENT = 32  # of tensors, where the file names none
# Above what any model has: vocabularies have 3e5 tokens, and models 2e4 tensors.
MAX_FIELDS, MAX_TENSORS, MAX_ENTRIES, MAX_STRING, MAX_DIMENSIONS = 10_000, 200_000, 4_000_000, 1 << 24, 4


@dataclass(frozen=True)
class Tensor:
    """One tensor's place in the file."""

    shape: tuple[int, ...]  # as in torch: rows first
    kind: str  # GGML's name of the type, such as F32 or Q4_1
    start: int  # its first byte
    nbytes: int


@dataclass(frozen=True)
class Header:
    """What stands before the tensors' data."""

    metadata: dict[str, Any] = field(default_factory=dict)  # scalars, strings and arrays of numbers
    lengths: dict[str, int] = field(default_factory=dict)  # of every array
    tensors: dict[str, Tensor] = field(default_factory=dict)


class HeaderError(Exception):
    """A header that does not fit its file."""


def read_header(file: Path) -> Header:
    """Return the header of `file`; UserError, naming the file and what is wrong, unless all that it says fits in it."""
    try:
        with file.open("rb") as stream:
            if stream.read(len(MAGIC)) != MAGIC:
                raise HeaderError("it does not begin with GGUF")
            with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
                return HeaderReader(content).header()
    except HeaderError as error:
        raise UserError(f"{file} is truncated or corrupt ({error}); fetch or export it again") from None
    except OSError as error:
        raise UserError(f"{file} cannot be read ({error.strerror}); expected a GGUF file") from None


class HeaderReader:
    """Reads a header from front to back; HeaderError for what reaches beyond the file or a limit."""

    def __init__(self, content: mmap.mmap):
        from gguf import GGML_QUANT_SIZES

        self.content, self.position, self.entries = content, len(MAGIC), 0
        self.types = {int(kind): (kind.name, *sizes) for kind, sizes in GGML_QUANT_SIZES.items()}

    def header(self) -> Header:
        """Return the whole header."""
        (version,) = self.numbers("I")
        if version not in VERSIONS:
            raise HeaderError(f"version {version}; expected one of: 2, 3, in little-endian order")
        tensors, fields = self.numbers("QQ")
        self.check_count("tensors", tensors, MAX_TENSORS, 24)
        self.check_count("metadata fields", fields, MAX_FIELDS, 13)
        header = Header()
        for _ in range(fields):
            self.read_field(header)
        places = [self.tensor_place() for _ in range(tensors)]
        alignment = header.metadata.get("general.alignment", ALIGNMENT)
        if not isinstance(alignment, int) or alignment < 1 or alignment & (alignment - 1):
            raise HeaderError(f"general.alignment = {alignment!r}; expected a power of 2")
        first = -(-self.position // alignment) * alignment
        for name, place in places:
            tensor = replace(place, start=first + place.start)
            if name in header.tensors:
                raise HeaderError(f"tensor {name} appears twice")
            if (end := tensor.start + tensor.nbytes) > len(self.content):
                raise HeaderError(f"tensor {name} ends at byte {end:,}, the file at {len(self.content):,}")
            header.tensors[name] = tensor
        return header

    def read_field(self, header: Header) -> None:
        """Read one field of metadata into `header`."""
        key = self.string("a metadata key")
        if key in header.metadata or key in header.lengths:
            raise HeaderError(f"{key} appears twice")
        (kind,) = self.numbers("I")
        if kind == STRING:
            header.metadata[key] = self.string(key)
        elif kind in NUMBERS:
            (header.metadata[key],) = self.numbers(NUMBERS[kind])
        elif kind == ARRAY:
            inner, count = self.numbers("IQ")
            if inner != STRING and inner not in NUMBERS:
                raise HeaderError(f"{key} is an array of type {inner}; expected numbers or strings")
            self.check_count(f"entries of {key}", count, MAX_ENTRIES - self.entries, 8 if inner == STRING else 1)
            self.entries += count
            header.lengths[key] = count
            if inner == STRING:
                for _ in range(count):
                    self.skip_string(key)
            else:
                header.metadata[key] = list(self.numbers(f"{count}{NUMBERS[inner]}"))
        else:
            raise HeaderError(f"{key} has the unknown type {kind}")

    def tensor_place(self) -> tuple[str, Tensor]:
        """Read one tensor's entry; return its name and its place, counted from where the data begins."""
        name = self.string("a tensor's name")
        (count,) = self.numbers("I")
        if not 1 <= count <= MAX_DIMENSIONS:
            raise HeaderError(f"tensor {name} has {count} dimensions; expected 1 to {MAX_DIMENSIONS}")
        *dimensions, number, offset = self.numbers(f"{count}QIQ")
        if number not in self.types:
            raise HeaderError(f"tensor {name} has the unknown type {number}")
        kind, block, size = self.types[number]
        if not all(dimensions) or dimensions[0] % block:
            raise HeaderError(f"tensor {name} has rows of {dimensions[0]}; expected a multiple of {block}")
        return name, Tensor(tuple(reversed(dimensions)), kind, offset, prod(dimensions) // block * size)

    def numbers(self, layout: str) -> tuple[Any, ...]:
        """Return the next numbers, laid out as struct says."""
        size = struct.calcsize(f"<{layout}")
        self.check_left(size, "its header")
        values = struct.unpack_from(f"<{layout}", self.content, self.position)
        self.position += size
        return values

    def string(self, what: str) -> str:
        """Return the next string, which `what` names in an error."""
        start = self.position + 8
        self.skip_string(what)
        try:
            return self.content[start : self.position].decode("utf-8")
        except UnicodeDecodeError:
            raise HeaderError(f"{what} is not UTF-8") from None

    def skip_string(self, what: str) -> None:
        """Skip the next string."""
        (length,) = self.numbers("Q")
        if length > MAX_STRING:
            raise HeaderError(f"{what} is a string of {length:,} bytes; expected at most {MAX_STRING:,}")
        self.check_left(length, what)
        self.position += length

    def check_left(self, size: int, what: str) -> None:
        """Raise HeaderError unless `size` more bytes are there."""
        if self.position + size > len(self.content):
            raise HeaderError(f"the file ends within {what}")

    def check_count(self, what: str, count: int, limit: int, size: int) -> None:
        """Raise HeaderError for more than `limit`, or than fit in the file when each takes `size` bytes or more."""
        if count > limit:
            raise HeaderError(f"{count:,} {what}; expected at most {limit:,}")
        if count * size > len(self.content) - self.position:
            raise HeaderError(f"{count:,} {what} do not fit in {len(self.content):,} bytes")
