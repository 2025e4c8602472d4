"""Is a variant's difference from the base more than chance? The report's tests, over all variants of a study."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import norm

from analysis.losses import Estimate, MeanLosses, mean_losses
from analysis.outcomes import side_by_side
from analysis.paired import paired_tests
from analysis.params import ReportParams
from analysis.results import perplexity_sets
from analysis.rows import Result, Row
from analysis.significance import holm


@dataclass(frozen=True)
class Difference:
    """A row against the base on one task: the mean over its runs."""

    value: float  # in points
    p: float  # the largest over the runs, Holm-adjusted over all rows and tasks
    significant: bool


def losses_of(groups: list[list[Result]], name: str, params: ReportParams) -> MeanLosses:
    """Return the mean losses on text `name` of groups of runs."""
    return mean_losses([{run.label: run.windows for run in runs} for runs in groups], name, params)


def perplexity_ratios(rows: list[Row], base: Result, params: ReportParams) -> dict[tuple[int, str], Estimate]:
    """Return the ratio of every row's perplexity to the base's, by the row's number and the text."""
    result = {}
    for name in perplexity_sets({"base": base.evaluate}):
        losses = losses_of([[base], *(row.runs for row in rows)], name, params)
        for number in range(len(rows)):
            result[number, name] = losses.ratio(0, number + 1, params.confidence)
    return result


def accuracy_differences(rows: list[Row], base: Result, params: ReportParams) -> dict[tuple[int, str], Difference]:
    """Return the difference of every row's accuracy to the base's, by the row's number and the task.

    McNemar's exact test for every run and task, Holm-adjusted over them all; a row with seeds differs where each of
    its runs does.
    """
    tests = [
        (number, test.task, 100 * test.difference, test.p)
        for number, row in enumerate(rows)
        for run in row.runs
        for test in paired_tests(base.label, base.questions, run.label, run.questions)
    ]
    table = pd.DataFrame(tests, columns=["row", "task", "difference", "p"])
    table["p"] = holm(table["p"].tolist())
    means = table.groupby(["row", "task"]).agg({"difference": "mean", "p": "max"})
    return {
        (number, task): Difference(difference, p, p < 1 - params.confidence)
        for (number, task), difference, p in means.itertuples(name=None)
    }


def average_difference(one: list[Result], other: list[Result], confidence: float) -> Estimate:
    """Return by how many points the average accuracy of one's runs exceeds the other's.

    Paired by question, each the mean over the runs; tasks weigh alike; normal approximation.
    """
    answers = [
        side_by_side({run.label: run.questions for run in runs}, ["task", "question"], "acc").mean(axis=1)
        for runs in (one, other)
    ]
    by_task = (answers[0] - answers[1]).groupby(level="task")
    value = 100 * float(by_task.mean().mean())
    error = 100 * float(np.sqrt((by_task.var() / by_task.size()).sum())) / by_task.ngroups
    half = float(norm.ppf((1 + confidence) / 2)) * error
    return Estimate(value, value - half, value + half)
