"""How one row of a table differs from another in one metric, and how sure that is; a row is a model and its runs.

A run compares its models with one another, a study every variant with the base. Both make the same contrasts.
"""

import math
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from scipy.stats import norm, ttest_rel

from analysis.estimates import Estimate
from analysis.losses import MeanLosses
from analysis.outcomes import side_by_side
from analysis.results import Metrics
from analysis.rows import Result, Runs
from analysis.significance import holm, mcnemar

ACCURACY, PERPLEXITY = "acc", "ppl"  # metrics; any other is called as evaluate names it
Pairs = Iterable[tuple[str, str]]  # the labels of reference and model
Test = Callable[[Result, Result], Iterable["Contrast"]]
VALUE_KEYS = ["task", "metric", "filter", "question"]


@dataclass(frozen=True)
class Contrast:
    """How a model differs from its reference in one metric of one task or text."""

    reference: str  # the labels of two rows
    model: str
    metric: str
    name: str  # the task or the text
    estimate: Estimate  # the difference in accuracy (share) or mean value, or the ratio of the perplexities
    significant: bool | None = None  # None where no test or interval says it
    p: float = math.nan  # not adjusted; NaN where the interval is the test
    p_holm: float = math.nan  # adjusted by Holm over the tests of the same family
    lost: int | None = None  # questions that only the reference answers right
    won: int | None = None  # questions that only the model answers right

    @property
    def title(self) -> str:
        """What a table calls the pair."""
        return f"{self.model} against {self.reference}"

    @property
    def column(self) -> str:
        """The column of the quality table that it is about."""
        return f"{self.name}_ppl" if self.metric == PERPLEXITY else self.name

    def metrics(self) -> Metrics:
        """Return the contrast by the names of metrics/details/report.json."""
        pair = self.model if self.reference == "base" else f"{self.model}_vs_{self.reference}"
        key = f"{pair}_{self.name}"
        if self.metric == PERPLEXITY:
            return self.estimate.metrics(f"{key}_ppl_ratio")
        test = f"{key}_mcnemar" if self.metric == ACCURACY else f"{key}_{self.metric}"
        found = {
            f"{key}_{self.metric}_difference": self.estimate.value,
            f"{key}_lost": self.lost,
            f"{key}_won": self.won,
            f"{test}_p": self.p,
            f"{test}_p_holm": self.p_holm,
        }
        return {name: value for name, value in found.items() if value is not None and not math.isnan(value)}


def perplexity_contrasts(losses: dict[str, MeanLosses], pairs: Pairs, confidence: float) -> list[Contrast]:
    """Return the ratios of the pairs' perplexities; `losses` are by text.

    A ratio is significant where its interval leaves out 1, not adjusted for the number of intervals.
    """
    contrasts = []
    for reference, model in pairs:
        for text, mean in losses.items():
            if {reference, model} <= set(mean.rows):
                ratio = mean.ratio(reference, model, confidence)
                significant = ratio.excludes(1) if ratio.bounded else None
                contrasts.append(Contrast(reference, model, PERPLEXITY, text, ratio, significant))
    return contrasts


def accuracy_contrasts(runs: Runs, pairs: Pairs, level: float) -> list[Contrast]:
    """Return the pairs' differences in accuracy, by McNemar's exact test."""
    return paired_contrasts(runs, pairs, accuracy_tests, level)


def value_contrasts(runs: Runs, pairs: Pairs, level: float) -> list[Contrast]:
    """Return the pairs' mean differences in what has a value for each question, of tasks without an accuracy."""
    return paired_contrasts(runs, pairs, value_tests, level)


def paired_contrasts(runs: Runs, pairs: Pairs, test: Test, level: float) -> list[Contrast]:
    """Return what `test` finds between the pairs' rows, whose reference has one run.

    The tests of all pairs, runs and tasks are one family. Raises UserError where a pair was not asked the same
    questions.
    """
    found: list[Contrast] = []
    for reference, model in pairs:
        if {reference, model} <= set(runs):
            (first,) = runs[reference]
            tests = (each for run in runs[model] for each in test(first, run))
            found += [replace(each, reference=reference, model=model) for each in tests]
    return pooled(adjusted(found, level))


def accuracy_tests(reference: Result, model: Result) -> Iterator[Contrast]:
    """Yield McNemar's exact test of every task that both results answered."""
    if reference.questions.empty or model.questions.empty:
        return
    frames = {each.label: each.questions for each in (reference, model)}
    for task, paired in side_by_side(frames, ["task", "question"], "acc").groupby(level="task"):
        found = mcnemar(paired[reference.label].to_numpy(), paired[model.label].to_numpy())
        difference, lost, won = Estimate((found.won - found.lost) / len(paired)), found.lost, found.won
        yield Contrast(reference.label, model.label, ACCURACY, str(task), difference, p=found.p, lost=lost, won=won)


def value_tests(reference: Result, model: Result) -> Iterator[Contrast]:
    """Yield a test of every metric of the tasks without an accuracy: McNemar's of zeros and ones, else the t-test."""
    scored = {task for each in (reference, model) for task in each.questions["task"]}
    frames = {each.label: each.values[~each.values["task"].isin(scored)] for each in (reference, model)}
    if any(frame.empty for frame in frames.values()):
        return
    for (task, metric, kind), group in side_by_side(frames, VALUE_KEYS, "value").groupby(level=VALUE_KEYS[:3]):
        one, other = (group[each.label].to_numpy(dtype=float) for each in (reference, model))
        name, difference = metric_name(metric, kind), Estimate(float(np.mean(other - one)))
        yield Contrast(reference.label, model.label, name, str(task), difference, p=p_of(one, other))


def average_contrast(runs: Runs, reference: str, model: str, confidence: float) -> Contrast:
    """Return the difference of two rows' average accuracies: tasks weigh alike.

    Paired by question, each the mean over the row's runs; the interval is a normal approximation.
    """
    first, second = (
        side_by_side({run.label: run.questions for run in runs[row]}, ["task", "question"], "acc").mean(axis=1)
        for row in (reference, model)
    )
    by_task = (second - first).groupby(level="task")
    value = float(by_task.mean().mean())
    error = float(np.sqrt((by_task.var() / by_task.size()).sum())) / by_task.ngroups
    half = float(norm.ppf((1 + confidence) / 2)) * error
    found = Estimate(value, value - half, value + half)
    return Contrast(reference, model, ACCURACY, "average", found, found.excludes(0))


def adjusted(tests: list[Contrast], level: float) -> list[Contrast]:
    """Return a family of tests with Holm's p-values, significant where these are below `level`."""
    p_values = holm([test.p for test in tests])
    return [replace(test, p_holm=p, significant=p < level) for test, p in zip(tests, p_values, strict=True)]


def pooled(tests: list[Contrast]) -> list[Contrast]:
    """Return one contrast for all runs of a row: the mean difference, significant where each run's is."""
    groups: dict[tuple[str, ...], list[Contrast]] = {}
    for test in tests:
        groups.setdefault((test.reference, test.model, test.name, test.metric), []).append(test)
    return [
        group[0]
        if len(group) == 1
        else replace(
            group[0],
            estimate=Estimate(float(np.mean([test.estimate.value for test in group]))),
            significant=all(test.significant for test in group),
            p=max(test.p for test in group),
            p_holm=max(test.p_holm for test in group),
            lost=None,
            won=None,
        )
        for group in groups.values()
    ]


def metric_name(metric: str, kind: str) -> str:
    """Return a metric and its filter as evaluate names them."""
    return re.sub(r"[^A-Za-z0-9_]+", "_", metric if kind == "none" else f"{metric}_{kind}")


def p_of(reference: np.ndarray, model: np.ndarray) -> float:
    """Return the two-sided p-value that the values of the same questions have one mean; shape (questions,)."""
    if np.isin([reference, model], (0, 1)).all():
        return mcnemar(reference, model).p
    difference = model - reference
    if np.ptp(difference) == 0:  # no spread for a t-test: the sign test, of differences that all have one sign
        return 1.0 if difference[0] == 0 else 2.0 ** (1 - len(difference))
    return float(ttest_rel(model, reference).pvalue)
