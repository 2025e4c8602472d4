"""Compare the models with one another: the numbers of metrics/comparison.json and metrics/details/report.json."""

import numpy as np
import pandas as pd

from analysis.outcomes import side_by_side
from analysis.params import ReportParams
from analysis.results import CONTRASTS, CONTROL, MODELS, Metrics, task_names
from analysis.significance import above_chance, bootstrap_losses, holm, interval, mcnemar, mean_loss


def compare(
    evaluate: dict[str, Metrics],
    chances: Metrics,
    questions: dict[str, pd.DataFrame],
    windows: dict[str, pd.DataFrame],
    params: ReportParams,
) -> Metrics:
    """Return all that can be said of the models from what was measured."""
    return (
        average_accuracies(evaluate, chances)
        | compare_with_chance(questions, chances)
        | compare_accuracies(questions)
        | compare_perplexities(windows, params)
    )


def average_accuracies(evaluate: dict[str, Metrics], chances: dict[str, float]) -> Metrics:
    """Return each model's mean accuracy over the tasks, raw and corrected for chance.

    Corrected: (accuracy - chance) / (1 - chance), so 0 is guessing and 1 is perfect, before the mean is taken. A model
    that lacks a task has no average, since it would be one over other tasks.
    """
    tasks = task_names(evaluate)
    averages = {}
    for model, metrics in evaluate.items():
        if not tasks or any(f"{task}_acc" not in metrics for task in tasks):
            continue
        accuracies = {task: metrics[f"{task}_acc"] for task in tasks}
        averages[f"{model}_average_acc"] = sum(accuracies.values()) / len(tasks)
        if all(task in chances for task in tasks):
            corrected = [(accuracies[task] - chances[task]) / (1 - chances[task]) for task in tasks]
            averages[f"{model}_average_acc_chance_corrected"] = sum(corrected) / len(tasks)
    return averages


def compare_with_chance(questions: dict[str, pd.DataFrame], chances: dict[str, float]) -> Metrics:
    """Return, per model and task, the probability of its right answers, or more, by guessing."""
    return {
        f"{model}_{task}_chance_p": above_chance(int(answers["acc"].sum()), len(answers), chances[task])
        for model, frame in questions.items()
        for task, answers in frame.groupby("task")
        if task in chances
    }


def compare_accuracies(questions: dict[str, pd.DataFrame]) -> Metrics:
    """Return, per contrast and task, the difference in accuracy and McNemar's exact test, raw and Holm-adjusted.

    The tests of all contrasts and tasks are one family.
    """
    metrics: Metrics = {}
    if not questions:
        return metrics
    answers = side_by_side(questions, ["task", "question"], "acc")
    names = []
    for name, reference, model in CONTRASTS:
        if not {reference, model} <= set(answers):
            continue
        for task, paired in answers.groupby(level="task"):
            test = mcnemar(paired[reference].to_numpy(), paired[model].to_numpy())
            names.append(f"{name}_{task}")
            metrics[f"{name}_{task}_acc_difference"] = (test.won - test.lost) / len(paired)
            metrics[f"{name}_{task}_lost"] = test.lost
            metrics[f"{name}_{task}_won"] = test.won
            metrics[f"{name}_{task}_mcnemar_p"] = test.p
    for name, adjusted in zip(names, holm([metrics[f"{name}_mcnemar_p"] for name in names]), strict=True):
        metrics[f"{name}_mcnemar_p_holm"] = adjusted
    return metrics


def compare_perplexities(windows: dict[str, pd.DataFrame], params: ReportParams) -> Metrics:
    """Return perplexities' ratios and the share of log-perplexity that recovery won back, with bootstrap intervals."""
    metrics: Metrics = {}
    if not windows:
        return metrics
    losses = side_by_side(windows, ["set", "window"], "loss")
    tokens = side_by_side(windows, ["set", "window"], "tokens").iloc[:, 0]
    for name, group in losses.groupby(level="set"):
        sizes, values = tokens.loc[group.index].to_numpy(dtype=float), group.to_numpy(dtype=float)
        means = dict(zip(group, mean_loss(values, sizes), strict=True))
        # One window has no spread to draw from, so then there is no interval.
        samples = params.bootstrap_samples if len(group) > 1 else 0
        drawn = dict(zip(group, bootstrap_losses(values, sizes, samples, params.seed).T, strict=True))
        metrics |= ratios(str(name), means, drawn, params.confidence)
        if set(means) >= set(MODELS):
            metrics |= recovery(str(name), means, drawn, params.confidence)
    return metrics


def ratios(name: str, means: dict[str, float], drawn: dict[str, np.ndarray], confidence: float) -> Metrics:
    """Return every contrast's ratio of perplexities on set `name` with its interval.

    `means` are mean losses by model, `drawn` the same of every bootstrap sample.
    """
    metrics: Metrics = {}
    for contrast, reference, model in CONTRASTS:
        if {reference, model} <= set(means):
            key = f"{contrast}_{name}_ppl_ratio"
            metrics[key] = float(np.exp(means[model] - means[reference]))
            metrics |= bounds(key, np.exp(drawn[model] - drawn[reference]), confidence)
    return metrics


def recovery(name: str, means: dict[str, float], drawn: dict[str, np.ndarray], confidence: float) -> Metrics:
    """Return the share of the log-perplexity lost by pruning that tuning won back; nothing where nothing was lost.

    `..._net` is the share without what tuning alone does: by how much less the tuned model lags behind the control,
    the base tuned alike, than the pruned model lags behind the base.
    """
    drawn_lost = drawn["pruned"] - drawn["base"]
    if means["pruned"] <= means["base"]:
        return {}
    metrics: Metrics = {}
    for suffix, reference in (("", "base"), ("_net", CONTROL)):
        if reference in means:
            key = f"tuned_{name}_log_ppl_recovered{suffix}"
            metrics[key] = float(1 - (means["tuned"] - means[reference]) / (means["pruned"] - means["base"]))
            # Where some samples lost nothing, the share has no finite interval.
            some = (drawn_lost > 0).all()
            shares = 1 - (drawn["tuned"] - drawn[reference]) / drawn_lost if some else np.empty(0)
            metrics |= bounds(key, shares, confidence)
    return metrics


def bounds(key: str, values: np.ndarray, confidence: float) -> Metrics:
    """Return `key`_low and `key`_high, nothing where there are no values."""
    if not len(values):
        return {}
    low, high = interval(values, confidence)
    return {f"{key}_low": low, f"{key}_high": high}
