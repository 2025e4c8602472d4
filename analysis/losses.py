"""Mean losses of models on the same windows, how they differ, and how sure that is."""

from dataclasses import dataclass

import numpy as np

from analysis.estimates import Estimate, estimate
from analysis.outcomes import side_by_side
from analysis.params import ReportParams
from analysis.rows import Runs
from analysis.significance import bootstrap_losses, mean_loss


@dataclass(frozen=True)
class MeanLosses:
    """Mean losses of rows on one text in nats per token, each the mean over the row's runs."""

    rows: list[str]  # their labels
    measured: np.ndarray  # shape (rows,)
    drawn: np.ndarray  # of every bootstrap sample, shape (samples, rows); no samples of one window alone

    def ratio(self, reference: str, model: str, confidence: float) -> Estimate:
        """Return the perplexity of row `model` divided by that of row `reference`."""
        (first, drawn_first), (second, drawn_second) = self.of(reference), self.of(model)
        return estimate(float(np.exp(second - first)), np.exp(drawn_second - drawn_first), confidence)

    def of(self, row: str) -> tuple[float, np.ndarray]:
        """Return one row's mean loss, and that of every bootstrap sample, shape (samples,)."""
        index = self.rows.index(row)
        return float(self.measured[index]), self.drawn[:, index]


def mean_losses(runs: Runs, text: str, params: ReportParams) -> MeanLosses:
    """Return the mean losses of rows on `text`.

    The bootstrap draws the same windows for all, and runs of a row where it has several. Raises UserError where the
    runs were not measured on the same windows.
    """
    frames = {run.label: run.windows[run.windows["set"] == text] for group in runs.values() for run in group}
    keys = ["set", "window"]
    losses = side_by_side(frames, keys, "loss").to_numpy(dtype=float)
    tokens = next(iter(frames.values())).set_index(keys)["tokens"].sort_index().to_numpy(dtype=float)
    sizes = [len(group) for group in runs.values()]
    # One window has no spread to draw from.
    samples = params.bootstrap_samples if len(losses) > 1 else 0
    drawn = draw_runs(bootstrap_losses(losses, tokens, samples, params.seed), sizes, params.seed)
    return MeanLosses(list(runs), group_means(mean_loss(losses, tokens), sizes), drawn)


def losses_by_text(runs: Runs, params: ReportParams) -> dict[str, MeanLosses]:
    """Return the mean losses of rows on every text that was measured; rows without windows are left out."""
    measured = {row: group for row, group in runs.items() if all(len(run.windows) for run in group)}
    texts = sorted({str(text) for group in measured.values() for run in group for text in run.windows["set"].unique()})
    return {text: mean_losses(measured, text, params) for text in texts}


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
