"""Documents in the user's own files: a text file is one document, and so is a row of .jsonl or .parquet.

A row has a column `text` or `sentence`, or the columns instruction, input and output of instruction data. Anything
else is an error that names the file and the byte, line or row.
"""

import codecs
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from stages.common.errors import UserError
from stages.data.rows import ALPACA, TEXT_COLUMNS

COLUMNS = f"expected {' or '.join(TEXT_COLUMNS)}, or {', '.join(ALPACA)}"
BATCH_ROWS = 1000


class Own(NamedTuple):
    """A document, and the instruction that it is, if it is one."""

    text: str
    instruction: dict[str, str] | None = None


def documents(file: Path, characters: int) -> Iterator[Own]:
    """Yield the documents of a file that are not blank; of a text file at most `characters`.

    Raises UserError if there is none, or at the first that is no text.
    """
    found = 0
    try:
        for document in READERS[file.suffix.lower()](file, characters):
            if document.text.strip():
                found += 1
                yield document
    except OSError as error:
        reason = " ".join(str(error.strerror or error).split())
        raise UserError(f"{file}: cannot be read ({reason})") from None
    if not found:
        raise UserError(f"{file}: contains no text; expected text (or remove the file)")


def text_file(file: Path, characters: int) -> Iterator[Own]:
    """Yield the text of the file, at most its first `characters`."""
    with file.open("rb") as content:
        raw = content.read(4 * characters)  # a character of UTF-8 has at most four bytes
        whole = not content.read(1)
    yield Own(decode(raw, str(file), whole)[:characters])


def decode(raw: bytes, where: str, whole: bool = True) -> str:
    """Return UTF-8 as text, a byte order mark left out; if it is not `whole`, the last character may be cut.

    Raises UserError, which begins with `where`, for other encodings and for binary data.
    """
    if (zero := raw.find(0)) >= 0:
        raise UserError(f"{where}: byte {zero + 1} is zero, so this is not text; expected UTF-8")
    try:
        return codecs.getincrementaldecoder("utf-8-sig")().decode(raw, final=whole).replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        value = raw[error.start]
        raise UserError(
            f"{where}: byte {error.start + 1} (0x{value:02x}) is not UTF-8; expected UTF-8 text, such as "
            "`iconv -f LATIN1 -t UTF-8` makes of Latin-1"
        ) from None


def json_lines(file: Path, _: int) -> Iterator[Own]:
    """Yield the document of each line; blank lines are left out."""
    with file.open("rb") as content:
        for number, line in enumerate(content, 1):
            where = f"{file}: line {number}"
            if not line.strip():
                continue
            try:
                row = json.loads(decode(line, where))
            except (ValueError, RecursionError) as error:
                raise UserError(f"{where} is not JSON ({error}); expected one JSON object per line") from None
            if not isinstance(row, dict):
                raise UserError(f"{where} is {type(row).__name__}; expected a JSON object")
            yield from_row(row, where)


def parquet(file: Path, _: int) -> Iterator[Own]:
    """Yield the document of each row; the schema's metadata, which may make other types of columns, is not used."""
    try:
        table = pq.ParquetFile(file)
        names = [name for name in (*TEXT_COLUMNS, *ALPACA) if name in table.schema_arrow.names]
        number = 0
        for batch in table.iter_batches(BATCH_ROWS, columns=names):
            rows = batch.to_pylist() if names else [{}]
            for row in rows:
                number += 1
                yield from_row(row, f"{file}: row {number}")
    except (pa.ArrowException, OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{file}: not a Parquet file, or damaged ({reason})") from None


def from_row(row: dict[str, Any], where: str) -> Own:
    """Return the document of a row; UserError, which begins with `where`, for other columns or values."""
    if "instruction" in row and "output" in row:
        values = {name: row.get(name) for name in ALPACA}
        values["input"] = "" if values["input"] is None else values["input"]
        strings = {name: string(value, name, where) for name, value in values.items()}
        return Own("\n".join(filter(None, strings.values())), strings)
    for name in TEXT_COLUMNS:
        if name in row:
            return Own(string(row[name], name, where))
    raise UserError(f"{where} has no text; {COLUMNS}; its columns: {', '.join(map(str, row)) or 'none of those'}")


def string(value: Any, name: str, where: str) -> str:
    """Return the value; UserError if it is not a string."""
    if not isinstance(value, str):
        kind = "null" if value is None else type(value).__name__
        raise UserError(f"{where}: {name} is {kind}; expected a string, or remove the row")
    return value


READERS = {".txt": text_file, ".md": text_file, ".jsonl": json_lines, ".parquet": parquet}
