"""What was measured of a model, and the rows of the tables that it is shown in."""

import io
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pandas as pd

from analysis.averages import average_accuracy
from analysis.results import Metrics, parse_json, task_names


@dataclass(frozen=True)
class Result:
    """One model of one run. What is missing stays missing: no key, no row."""

    run: str  # the experiment's name; empty for the run in this folder
    model: str  # base | pruned | tuned, or the last two in a format of the study: tuned-gguf-q8_0
    evaluate: Metrics
    profile: Metrics
    questions: pd.DataFrame  # task, question, acc and acc_norm (0 or 1), answer; no rows where it was not measured
    windows: pd.DataFrame  # set, window, loss in nats per token, tokens; no rows where it was not measured
    values: pd.DataFrame  # task, question, metric, filter, value: of every metric with a value for each question
    layers: pd.DataFrame | None  # what pruning left of each layer; None for the base
    config: dict[str, Any]  # its config.json, which gives its shape; empty where it is missing

    @property
    def label(self) -> str:
        """What messages call it."""
        return f"{self.run}, {self.model}" if self.run else self.model

    @property
    def format(self) -> str:
        """The format it was exported in, nothing for the checkpoint itself."""
        return self.model.partition("-")[2]

    @property
    def average(self) -> float:
        """Mean accuracy over its tasks, in percent; NaN without tasks."""
        return 100 * average_accuracy(self.evaluate, task_names({self.model: self.evaluate}))


def read_result(read: Callable[[str], bytes | None], run: str, model: str, folder: str) -> Result:
    """Return what `run` measured of the model in `folder`.

    `read` returns a file's content by its path in the project, from wherever it is, and None where it is missing.
    """

    def measured(stage: str) -> Metrics:
        paths = (f"metrics/{stage}/{model}.json", f"metrics/details/{stage}/{model}.json")
        return {key: value for path in paths for key, value in parse_json(read(path), path).items()}

    def outcomes(name: str, columns: list[str]) -> pd.DataFrame:
        content = read(f"metrics/outcomes/{model}/{name}.parquet")
        return pd.DataFrame(columns=columns) if content is None else pd.read_parquet(io.BytesIO(content))

    layers = None if model == "base" else read("metrics/prune_layers.csv")
    return Result(
        run,
        model,
        evaluate=measured("evaluate"),
        profile=measured("profile"),
        questions=outcomes("questions", ["task", "question", "acc", "acc_norm", "answer"]),
        windows=outcomes("windows", ["set", "window", "loss", "tokens"]),
        values=outcomes("values", ["task", "question", "metric", "filter", "value"]),
        layers=None if layers is None else pd.read_csv(io.BytesIO(layers)),
        config=parse_json(read(f"{folder}/config.json"), f"{folder}/config.json"),
    )


Runs = dict[str, list[Result]]  # by the label of a row, which has several runs where there are seeds


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
        """The name of the line in a plot that the row is a point of."""
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
