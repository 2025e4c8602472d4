"""The models' answers side by side, question by question and window by window."""

from pathlib import Path

import pandas as pd

from stages.common.errors import UserError


def side_by_side(frames: dict[str, pd.DataFrame], keys: list[str], value: str) -> pd.DataFrame:
    """Return one column of `value` per model, indexed by `keys`.

    Raises UserError when the models were not measured on the same items: then nothing is paired.
    """
    columns = {model: frame.set_index(keys)[value].sort_index() for model, frame in frames.items()}
    for model, column in columns.items():
        first, reference = next(iter(columns.items()))
        if not column.index.is_unique or not column.index.equals(reference.index):
            raise UserError(
                f"metrics/outcomes: {first} and {model} were not measured on the same {keys[-1]}s; "
                "evaluate both again with the same data and params"
            )
    return pd.DataFrame(columns)


def read_table(path: Path) -> pd.DataFrame | None:
    """Return a CSV file, None where there is no such file."""
    return pd.read_csv(path) if path.is_file() else None
