"""Mean losses of models on the same windows, how they differ, and how sure that is."""

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.outcomes import side_by_side
from analysis.params import ReportParams
from analysis.significance import bootstrap_losses, interval, mean_loss


@dataclass(frozen=True)
class Estimate:
    """A number with its interval, whose bounds are NaN where there is none."""

    value: float
    low: float
    high: float

    def excludes(self, null: float) -> bool:
        """Return whether the interval leaves out `null`."""
        return self.low > null or self.high < null


@dataclass(frozen=True)
class MeanLosses:
    """Mean losses on one text in nats per token, each the mean over a group of runs."""

    measured: np.ndarray  # shape (groups,)
    drawn: np.ndarray  # of every bootstrap sample, shape (samples, groups); no samples of one window alone

    def ratio(self, reference: int, model: int, confidence: float) -> Estimate:
        """Return the perplexity of group number `model` divided by that of group number `reference`."""
        ratios = np.exp(self.drawn[:, model] - self.drawn[:, reference])
        return estimate(float(np.exp(self.measured[model] - self.measured[reference])), ratios, confidence)


def estimate(value: float, drawn: np.ndarray, confidence: float) -> Estimate:
    """Return `value` with the interval of what was drawn."""
    low, high = interval(drawn, confidence) if len(drawn) else (math.nan, math.nan)
    return Estimate(value, low, high)


def mean_losses(groups: list[dict[str, pd.DataFrame]], name: str, params: ReportParams) -> MeanLosses:
    """Return the mean losses on text `name` of groups of runs, each run's windows by the run's name.

    The bootstrap draws the same windows for all, and runs of a group where it has several. Raises UserError where the
    runs were not measured on the same windows.
    """
    frames = {run: table[table["set"] == name] for group in groups for run, table in group.items()}
    keys = ["set", "window"]
    losses = side_by_side(frames, keys, "loss").to_numpy(dtype=float)
    tokens = next(iter(frames.values())).set_index(keys)["tokens"].sort_index().to_numpy(dtype=float)
    sizes = [len(group) for group in groups]
    # One window has no spread to draw from.
    samples = params.bootstrap_samples if len(losses) > 1 else 0
    drawn = draw_runs(bootstrap_losses(losses, tokens, samples, params.seed), sizes, params.seed)
    return MeanLosses(group_means(mean_loss(losses, tokens), sizes), drawn)


def draw_runs(values: np.ndarray, groups: list[int], seed: int) -> np.ndarray:
    """Return the mean of each group of columns, over columns drawn with replacement: shape (samples, groups).

    `values` has shape (samples, runs); `groups` are the numbers of runs of each group, in the columns' order. A group
    of one run keeps it, so only where there are seeds does their spread come in.
    """
    generator = np.random.default_rng(seed)
    result, start = [], 0
    for size in groups:
        columns = start + generator.integers(size, size=(len(values), size))
        result.append(np.take_along_axis(values, columns, axis=1).mean(axis=1))
        start += size
    return np.stack(result, axis=1)


def group_means(values: np.ndarray, groups: list[int]) -> np.ndarray:
    """Return the mean of each group of `values`, shape (runs,) -> (groups,)."""
    return np.array([part.mean() for part in np.split(values, np.cumsum(groups)[:-1])])
