"""Paired tests on what evaluate measures of each question but an accuracy: exact match, F1, a probability."""

import re

import numpy as np
import pandas as pd
from scipy.stats import ttest_rel

from analysis.outcomes import side_by_side
from analysis.results import CONTRASTS, Metrics
from analysis.significance import holm, mcnemar

KEYS = ["task", "metric", "filter", "question"]


def compare_values(values: dict[str, pd.DataFrame], questions: dict[str, pd.DataFrame]) -> Metrics:
    """Return, per contrast and metric of a task, the mean difference and its test, raw and Holm-adjusted.

    `values` are the models' values.parquet. Tasks in `questions`, which are tested by their accuracy, are left out.
    Where all values are 0 or 1 the test is McNemar's, else the paired t-test. The tests are one family.
    """
    tested = {task for frame in questions.values() for task in frame["task"]}
    left = {model: frame[~frame["task"].isin(tested)] for model, frame in values.items()}
    metrics: Metrics = {}
    if not left or all(frame.empty for frame in left.values()):
        return metrics
    paired = side_by_side(left, KEYS, "value")
    names = []
    for contrast, reference, model in CONTRASTS:
        if not {reference, model} <= set(paired):
            continue
        for (task, metric, kind), group in paired.groupby(level=KEYS[:3]):
            one, other = group[reference].to_numpy(dtype=float), group[model].to_numpy(dtype=float)
            names.append(f"{contrast}_{task}_{written(metric, kind)}")
            metrics[f"{names[-1]}_difference"] = float(np.mean(other - one))
            metrics[f"{names[-1]}_p"] = p_of(one, other)
    for name, adjusted in zip(names, holm([metrics[f"{name}_p"] for name in names]), strict=True):
        metrics[f"{name}_p_holm"] = adjusted
    return metrics


def written(metric: str, kind: str) -> str:
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
