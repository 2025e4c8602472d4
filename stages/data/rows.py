"""Rows of text: its columns, and Parquet files from untrusted sources."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from stages.common.errors import UserError

TEXT_COLUMNS = ("text", "sentence")
ALPACA = ["instruction", "input", "output"]


def read_parquet(file: Path) -> pa.Table:
    """Return the rows of a Parquet file without its schema's metadata.

    That metadata may declare a column as images, audio or another type of `datasets`, which then opens the paths and
    addresses in it. Raises OSError or ValueError if it is no Parquet file.
    """
    return without_metadata(pq.read_table(file))


def without_metadata(table: pa.Table) -> pa.Table:
    """Return the table without metadata of its schema and its columns."""
    return table.cast(pa.schema([field.remove_metadata() for field in table.schema]))


def check_text(file: Path, table: pa.Table) -> None:
    """Raise UserError, naming file and row, if a text column of the table holds no text or a null."""
    for name in TEXT_COLUMNS:
        if name not in table.column_names:
            continue
        column = table[name]
        kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
        if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_null(kind)):
            raise UserError(f"{file}: column {name} holds {column.type}; expected strings")
        if column.null_count:
            row = column.is_null().to_pylist().index(True)
            raise UserError(f"{file}: row {row + 1} has no {name} (null); expected a string, or remove the row")
