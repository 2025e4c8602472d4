"""Any two variants of a page compared: perplexities as ratios with intervals, accuracies by McNemar's exact test."""

import math
from itertools import combinations
from typing import Any

import numpy as np
from scipy.stats import norm

from analysis.contrasts import ACCURACY, Contrast
from analysis.losses import MeanLosses, losses_by_text
from analysis.outcomes import side_by_side
from analysis.params import ReportParams
from analysis.rows import Row
from analysis.significance import holm, mcnemar

Pair = tuple[int, int]  # numbers of the reference and of the model
Adjusted = dict[tuple[int, int, str], float]  # p by pair and task


def contrasts(
    rows: list[Row], names: list[str], reported: list[Contrast], params: ReportParams
) -> list[dict[str, Any]]:
    """Return what differs between every two rows, the base first among them; `names` are what `reported` calls them.

    A pair that the report lists has the report's adjusted p-values; those of others are adjusted over the pair's tasks.
    """
    numbers = {name: number for number, name in enumerate(names)}
    adjusted = {
        (numbers[each.reference], numbers[each.model], each.name): each.p_holm
        for each in reported
        if each.metric == ACCURACY
    }
    found: dict[Pair, dict[str, Any]] = {pair: {} for pair in combinations(range(len(rows)), 2)}
    for text, losses in losses_by_text({str(number): row.runs for number, row in enumerate(rows)}, params).items():
        for pair, ratio in perplexities(losses, params.confidence).items():
            found[pair].setdefault("ratios", {})[text] = ratio
    for pair, tests in accuracies(rows, adjusted).items():
        found[pair]["tasks"] = tests
    for pair, average in averages(rows, params.confidence).items():
        found[pair]["average"] = average
    return [{"reference": first, "model": second, **each} for (first, second), each in found.items() if each]


def perplexities(losses: MeanLosses, confidence: float) -> dict[Pair, list[float]]:
    """Return ratio, low and high of every pair's perplexities; the rows' labels in `losses` are their numbers."""
    ratios = {}
    for reference, model in combinations(losses.rows, 2):
        ratio = losses.ratio(reference, model, confidence)
        ratios[int(reference), int(model)] = [short(each) for each in (ratio.value, ratio.low, ratio.high)]
    return ratios


def short(value: float) -> float:
    """Return a number with as many digits as a page shows of it, and some."""
    return float(f"{value:.6g}")


def answers(rows: list[Row]) -> tuple[dict[str, np.ndarray], list[list[int]], list[int]]:
    """Return right (1) and wrong (0) answers by task, shape (questions, runs); each row's columns; the rows there."""
    there = [number for number, row in enumerate(rows) if all(len(run.questions) for run in row.runs)]
    runs = [run for number in there for run in rows[number].runs]
    if not runs:
        return {}, [], []
    frames = {str(index): run.questions.dropna(subset="acc") for index, run in enumerate(runs)}
    table = side_by_side(frames, ["task", "question"], "acc").astype(int)
    columns, start = [], 0
    for number in there:
        columns.append(list(range(start, start + len(rows[number].runs))))
        start += len(rows[number].runs)
    return {str(task): part.to_numpy() for task, part in table.groupby(level="task")}, columns, there


def accuracies(rows: list[Row], adjusted: Adjusted) -> dict[Pair, dict[str, dict[str, Any]]]:
    """Return McNemar's exact test of every pair and task: points, lost and won questions, p, adjusted p.

    Rows with seeds are compared seed by seed, and the largest p counts.
    """
    by_task, columns, there = answers(rows)
    pairs: dict[Pair, dict[str, dict[str, Any]]] = {}
    for (one, first), (other, second) in combinations(enumerate(there), 2):
        tests = {}
        for task, right in by_task.items():
            both = runs_of(columns[one], columns[other])
            found = [mcnemar(right[:, a], right[:, b]) for a, b in both]
            lost, won = sum(each.lost for each in found), sum(each.won for each in found)
            points = 100 * (won - lost) / (len(right) * len(both))
            tests[task] = {"points": short(points), "lost": lost, "won": won, "p": short(max(each.p for each in found))}
        own = holm([test["p"] for test in tests.values()])
        for (task, test), p in zip(tests.items(), own, strict=True):
            test["p_holm"] = short(adjusted.get((first, second, task), p))
        pairs[first, second] = tests
    return pairs


def runs_of(first: list[int], second: list[int]) -> list[tuple[int, int]]:
    """Return which runs are compared: seed by seed where both have as many, else the one with each of the other's."""
    if len(first) == len(second):
        return list(zip(first, second, strict=True))
    return [(a, b) for a in first for b in second]


def averages(rows: list[Row], confidence: float) -> dict[Pair, list[float]]:
    """Return by how many points every pair's average accuracy differs, low and high, as `average_contrast` does.

    On one array for all rows: that function for each of a thousand pairs would join their tables a thousand times.
    """
    by_task, columns, there = answers(rows)
    if not by_task:
        return {}
    half = float(norm.ppf((1 + confidence) / 2))
    means = {
        task: np.stack([right[:, each].mean(axis=1) for each in columns], axis=1) for task, right in by_task.items()
    }
    found = {}
    for (one, first), (other, second) in combinations(enumerate(there), 2):
        differences = [mean[:, other] - mean[:, one] for mean in means.values()]
        value = 100 * float(np.mean([each.mean() for each in differences]))
        variances = [each.var(ddof=1) / len(each) if len(each) > 1 else math.nan for each in differences]
        error = 100 * math.sqrt(sum(variances)) / len(differences)
        found[first, second] = [short(value), short(value - half * error), short(value + half * error)]
    return found
