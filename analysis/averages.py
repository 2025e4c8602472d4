"""Mean accuracies over tasks, raw and corrected for chance, and what takes no model."""

import math

import numpy as np
import pandas as pd

from analysis.results import Metrics

MAJORITY_ROW = "majority answer"


def average_accuracy(evaluate: Metrics, tasks: list[str]) -> float:
    """Return the mean accuracy over `tasks`; NaN without tasks, or where one is missing: it would be over others."""
    return mean([evaluate.get(f"{task}_acc", math.nan) for task in tasks])


def average_corrected(evaluate: Metrics, tasks: list[str], chances: Metrics) -> float:
    """Return the mean of (accuracy - chance) / (1 - chance) over `tasks`: 0 is guessing, 1 is perfect.

    NaN without tasks, or where an accuracy or a chance is missing.
    """
    scores = pd.Series([evaluate.get(f"{task}_acc", math.nan) for task in tasks], dtype=float)
    return chance_corrected(scores, pd.Series([chances.get(task, math.nan) for task in tasks], dtype=float), whole=1)


def chance_corrected(scores: pd.Series, chances: pd.Series, whole: float = 100) -> float:
    """Return the mean of (score - chance) / (whole - chance), as a share of `whole`; NaN where one is missing."""
    return whole * mean(((scores - chances) / (whole - chances)).tolist())


def mean(values: list[float]) -> float:
    """Return the mean, NaN of nothing."""
    return float(np.mean(values)) if values else math.nan


def majority_shares(questions: dict[str, pd.DataFrame]) -> Metrics:
    """Return how often the most frequent answer is right, by task; only where all questions have the same choices.

    The models' questions are the same, so any model's will do.
    """
    answered = next(iter(questions.values()), pd.DataFrame(columns=["task", "answer"])).dropna(subset="answer")
    return {
        str(task): float(each.value_counts(normalize=True).max()) for task, each in answered.groupby("task")["answer"]
    }


def baseline_table(tasks: list[str], chances: Metrics, majorities: Metrics) -> pd.DataFrame:
    """Return what takes no model (percent): guessing, and always giving the answer that is most often right.

    A row without a number is left out.
    """
    guessing = 100 * pd.Series(chances, dtype=float).reindex(tasks)
    rows = {"guessing": guessing, MAJORITY_ROW: 100 * pd.Series(majorities, dtype=float).reindex(tasks)}
    table = pd.DataFrame(rows).T.dropna(how="all")
    averages = {
        "average": table.mean(axis=1, skipna=False),
        "chance_corrected": table.apply(chance_corrected, axis=1, chances=guessing),
    }
    return table.assign(**averages)
