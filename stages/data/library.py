"""Read public datasets, and record what was read and what is missing."""

from typing import Any

import pandas as pd
import pyarrow as pa

from stages.common.errors import UserError
from stages.data.datasets import Dataset
from stages.data.params import DataParams
from stages.data.readers import Reader, hub_reader, mirror_reader
from stages.data.rows import ALPACA, TEXT_COLUMNS


class Library:
    """The datasets of data.mirror, or of the hub where there is none; it is opened when something is read from it."""

    def __init__(self, params: DataParams):
        self.params = params
        self.reader: Reader | None = None
        self.records: list[dict[str, Any]] = []
        self.missing: list[str] = []

    def get(self, name: str, dataset: Dataset, split: str) -> pa.Table | None:
        """Return a split for the part `name`, or None where a mirror lacks it."""
        self.reader = self.reader or self.open()
        found = self.reader(dataset, split)
        if found is None:
            self.missing.append(f"{name} ({dataset.places(split)[0]})")
            return None
        self.records.append({"name": name, **found.record, "rows": found.table.num_rows})
        return found.table

    def open(self) -> Reader:
        """Return the reader of the mirror or the hub; UserError if the mirror is not a folder."""
        if self.params.source != "hub" and self.params.mirror:
            return mirror_reader(self.params.mirror)
        return hub_reader(self.params.revisions)

    def report(self) -> None:
        """Name the missing data: UserError, or a line with data.missing: skip."""
        if not self.missing:
            return
        line = f"not in the mirror: {', '.join(self.missing)}"
        if self.params.missing == "refuse":
            raise UserError(f"{line}; add it, name other data, or set data.missing: skip")
        print(f"data: {line}; left out", flush=True)


def texts_of(name: str, table: pa.Table) -> list[str]:
    """Return the rows as text, by the columns there are; UserError if there are none for it."""
    for column in TEXT_COLUMNS:
        if column in table.column_names:
            return table[column].to_pylist()
    return ["\n".join(filter(None, row)) for row in alpaca(name, table).itertuples(index=False)]


def alpaca(name: str, table: pa.Table) -> pd.DataFrame:
    """Return the columns instruction, input, output; UserError if one is missing."""
    lacking = [column for column in ALPACA if column not in table.column_names]
    if lacking:
        raise UserError(
            f"data: {name} has no column {', '.join(lacking)}; its columns: {', '.join(table.column_names)}"
        )
    return table.select(ALPACA).to_pandas().fillna("")
