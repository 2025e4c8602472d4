"""What was measured of a model, and the rows of the tables that it is shown in."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pandas as pd

from analysis.averages import average_accuracy
from analysis.results import Metrics, task_names


@dataclass(frozen=True)
class Result:
    """One model of one run."""

    run: str  # the experiment's name
    model: str  # base | pruned | tuned, or the last two in a format of the study: tuned-gguf-q8_0
    evaluate: Metrics
    profile: Metrics
    questions: pd.DataFrame  # task, question, acc: 0 or 1
    windows: pd.DataFrame  # set, window, loss in nats per token, tokens
    layers: pd.DataFrame | None  # what pruning left of each layer; None for the base
    config: dict[str, Any]  # its config.json, which tells its shape

    @property
    def label(self) -> str:
        """What messages call it."""
        return f"{self.run}, {self.model}"

    @property
    def average(self) -> float:
        """Mean accuracy over its tasks, in percent; NaN without tasks."""
        return 100 * average_accuracy(self.evaluate, task_names({self.model: self.evaluate}))


@dataclass(frozen=True)
class Row:
    """One row of the tables: a method at a ratio, measured once, or once per seed."""

    method: str
    ratio: float
    model: str
    runs: list[Result]
    base: Result

    @cached_property
    def line(self) -> str:
        """The name of the line in a plot that the cell is a point of."""
        return ", ".join([self.method, *(["tuned"] if self.tuned else []), *([self.format] if self.format else [])])

    @property
    def label(self) -> str:
        """What a sentence calls the row."""
        return f"{self.line} {self.ratio:g}" if self.ratio else self.line

    @property
    def tuned(self) -> bool:
        """Whether the model was recovered."""
        return self.model.startswith("tuned")

    @property
    def format(self) -> str:
        """The format it was exported in, nothing for the checkpoint itself."""
        return self.model.partition("-")[2]

    def values(self, kind: str, metric: str) -> list[float]:
        """Return a metric of `kind` evaluate or profile of every run that has it."""
        return [getattr(run, kind)[metric] for run in self.runs if metric in getattr(run, kind)]

    @property
    def kept(self) -> float:
        """Share of the base's parameters that is left, mean over the runs."""
        parameters = self.values("profile", "parameters")
        return sum(parameters) / len(parameters) / self.base.profile["parameters"]
