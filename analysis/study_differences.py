"""Is a variant's difference from the base more than chance? The report's tests, over all variants of a study."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import norm

from analysis.outcomes import side_by_side
from analysis.params import ReportParams
from analysis.results import perplexity_sets, task_names
from analysis.rows import Result, Row
from analysis.significance import bootstrap_losses, holm, interval, mcnemar, mean_loss


@dataclass(frozen=True)
class Difference:
    """A cell against the base, on one task or text: the mean over its runs, and whether it is significant."""

    value: float  # accuracy: difference in points; perplexity: ratio
    low: float  # of the interval of a ratio; NaN for accuracies
    high: float
    p: float  # Holm-adjusted, the largest over the runs; NaN for ratios
    significant: bool


def losses_of(runs: list[Result], name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the runs' window losses on text `name`, shape (windows, runs), and the windows' tokens, shape (windows,).

    Raises UserError where the runs were not measured on the same windows.
    """
    frames = {f"{run.run}, {run.model}": run.windows[run.windows["set"] == name] for run in runs}
    losses = side_by_side(frames, ["set", "window"], "loss").to_numpy(dtype=float)
    return losses, runs[0].windows.loc[runs[0].windows["set"] == name, "tokens"].to_numpy(dtype=float)


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


def perplexity_ratios(cells: list[Row], base: Result, params: ReportParams) -> dict[tuple[int, str], Difference]:
    """Return the ratio of every cell's perplexity to the base's, by the cell's number and the text.

    The interval is a bootstrap over windows, the same ones for all, and over seeds where there are some.
    """
    result = {}
    groups = [1, *(len(cell.runs) for cell in cells)]
    for name in perplexity_sets({"base": base.evaluate}):
        losses, tokens = losses_of([base, *(run for cell in cells for run in cell.runs)], name)
        means = group_means(mean_loss(losses, tokens), groups)
        drawn = draw_runs(bootstrap_losses(losses, tokens, params.bootstrap_samples, params.seed), groups, params.seed)
        for number in range(len(cells)):
            ratios = np.exp(drawn[:, number + 1] - drawn[:, 0])
            low, high = interval(ratios, params.confidence)
            value = float(np.exp(means[number + 1] - means[0]))
            result[number, name] = Difference(value, low, high, np.nan, not low <= 1 <= high)
    return result


def accuracy_differences(cells: list[Row], base: Result, params: ReportParams) -> dict[tuple[int, str], Difference]:
    """Return the difference of every cell's accuracy to the base's in points, by the cell's number and the task.

    McNemar's exact test for every run and task, Holm-adjusted over them all; a cell with seeds differs where each of
    its runs does.
    """
    runs = {(number, run.run): run for number, cell in enumerate(cells) for run in cell.runs}
    tests = []
    for (number, name), run in runs.items():
        answers = side_by_side({"base": base.questions, name: run.questions}, ["task", "question"], "acc")
        for task, paired in answers.groupby(level="task"):
            test = mcnemar(paired["base"].to_numpy(), paired[name].to_numpy())
            tests.append((number, str(task), 100 * (test.won - test.lost) / len(paired), test.p))
    table = pd.DataFrame(tests, columns=["cell", "task", "difference", "p"])
    table["p"] = holm(table["p"].tolist())
    result = {}
    for (number, task), rows in table.groupby(["cell", "task"]):
        largest = float(rows["p"].max())
        significant = largest < 1 - params.confidence
        result[number, task] = Difference(float(rows["difference"].mean()), np.nan, np.nan, largest, significant)
    return result


def average_accuracy(run: Result) -> float:
    """Return the mean accuracy over the tasks, in percent; NaN without tasks."""
    accuracies = [run.evaluate[f"{task}_acc"] for task in task_names({"model": run.evaluate})]
    return 100 * float(np.mean(accuracies)) if accuracies else np.nan


def average_difference(one: list[Result], other: list[Result], confidence: float) -> tuple[float, float, float]:
    """Return by how many points the average accuracy of one's runs exceeds the other's, with its interval.

    Paired by question, each the mean over the runs; tasks weigh alike; normal approximation.
    """
    answers = [
        side_by_side({run.run: run.questions for run in runs}, ["task", "question"], "acc").mean(axis=1)
        for runs in (one, other)
    ]
    by_task = (answers[0] - answers[1]).groupby(level="task")
    value = 100 * float(by_task.mean().mean())
    error = 100 * float(np.sqrt((by_task.var() / by_task.size()).sum())) / by_task.ngroups
    half = float(norm.ppf((1 + confidence) / 2)) * error
    return value, value - half, value + half
