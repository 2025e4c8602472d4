"""The models' answers side by side, question by question and window by window."""

from pathlib import Path

import pandas as pd

from analysis.results import Metrics, perplexity_sets, task_names
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


def perplexity_rows(evaluate: dict[str, Metrics]) -> list[dict[str, str | float]]:
    """Return one row (model, set, label, perplexity) per measured perplexity, for `dvc plots`."""
    return [
        {"model": model, "set": name, "label": f"{name}, {model}", "perplexity": metrics[f"{name}_ppl"]}
        for name in perplexity_sets(evaluate)
        for model, metrics in evaluate.items()
        if f"{name}_ppl" in metrics
    ]


def accuracy_rows(evaluate: dict[str, Metrics]) -> list[dict[str, str | float]]:
    """Return one row (model, task, label, accuracy) per measured accuracy, for `dvc plots`."""
    return [
        {"model": model, "task": task, "label": f"{task}, {model}", "accuracy": metrics[f"{task}_acc"]}
        for task in task_names(evaluate)
        for model, metrics in evaluate.items()
        if f"{task}_acc" in metrics
    ]
