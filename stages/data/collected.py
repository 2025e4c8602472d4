"""The data that every source returns."""

from dataclasses import dataclass
from typing import Any

import pandas as pd
import pyarrow as pa

from stages.data.definitions import GroupDefinition


@dataclass(frozen=True)
class Task:
    """One evaluation task: its lm-eval config without the location of the data, and a table for every split."""

    config: dict[str, Any]
    splits: dict[str, pa.Table]
    scored: str  # the split that is scored; others are for few-shot examples

    @property
    def name(self) -> str:
        """The task's name."""
        return self.config["task"]

    @property
    def questions(self) -> int:
        """The number of questions."""
        return self.splits[self.scored].num_rows


@dataclass(frozen=True)
class Collected:
    """Everything that the data stage writes."""

    texts: dict[str, list[str]]  # split: its documents
    calibration: list[str]  # documents that pruning calibrates on and recovery learns from
    instructions: pd.DataFrame  # columns instruction, input, output
    perplexity: dict[str, list[str]]  # set: its documents
    tasks: dict[str, Task]
    sources: list[dict[str, Any]]  # where each part comes from: names, revision, sha256
    details: dict[str, int | float]
    own_domain: str | None  # the perplexity set from the same corpus as `texts`, if there is one
    groups: dict[str, GroupDefinition]  # lm-eval's groups of those tasks
