"""Compare the models with one another: the numbers of metrics/comparison.json and metrics/details/report.json."""

import math

import numpy as np
import pandas as pd

from analysis.averages import average_accuracy, average_corrected
from analysis.losses import Estimate, MeanLosses, estimate, mean_losses
from analysis.paired import paired_tests
from analysis.params import ReportParams
from analysis.recovery import share_key
from analysis.results import CONTRASTS, CONTROL, MODELS, Metrics, task_names
from analysis.significance import above_chance, holm


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
    """Return each model's mean accuracy over the tasks, raw and corrected for chance, where there is one."""
    tasks = task_names(evaluate)
    averages = {}
    for model, metrics in evaluate.items():
        averages[f"{model}_average_acc"] = average_accuracy(metrics, tasks)
        averages[f"{model}_average_acc_chance_corrected"] = average_corrected(metrics, tasks, chances)
    return {key: value for key, value in averages.items() if not math.isnan(value)}


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
    names = []
    for contrast, reference, model in CONTRASTS:
        if {reference, model} <= set(questions):
            for test in paired_tests(reference, questions[reference], model, questions[model]):
                name = f"{contrast}_{test.task}"
                names.append(name)
                metrics[f"{name}_acc_difference"] = test.difference
                metrics[f"{name}_lost"] = test.lost
                metrics[f"{name}_won"] = test.won
                metrics[f"{name}_mcnemar_p"] = test.p
    for name, adjusted in zip(names, holm([metrics[f"{name}_mcnemar_p"] for name in names]), strict=True):
        metrics[f"{name}_mcnemar_p_holm"] = adjusted
    return metrics


def compare_perplexities(windows: dict[str, pd.DataFrame], params: ReportParams) -> Metrics:
    """Return perplexities' ratios and the share of log-perplexity that recovery won back, with bootstrap intervals."""
    metrics: Metrics = {}
    number = {model: index for index, model in enumerate(windows)}
    for name in sorted({str(each) for frame in windows.values() for each in frame["set"]}):
        losses = mean_losses([{model: frame} for model, frame in windows.items()], name, params)
        for contrast, reference, model in CONTRASTS:
            if {reference, model} <= set(windows):
                ratio = losses.ratio(number[reference], number[model], params.confidence)
                metrics |= flat(f"{contrast}_{name}_ppl_ratio", ratio)
        if set(windows) >= set(MODELS):
            metrics |= recovery(name, losses, number, params.confidence)
    return metrics


def recovery(name: str, losses: MeanLosses, number: dict[str, int], confidence: float) -> Metrics:
    """Return the share of the log-perplexity lost by pruning that tuning won back; nothing where nothing was lost.

    `number` is each model's in `losses`. `..._net` is the share without what tuning alone does: by how much less the
    tuned model lags behind the control, the base tuned alike, than the pruned model lags behind the base.
    """
    means = {model: losses.measured[index] for model, index in number.items()}
    drawn = {model: losses.drawn[:, index] for model, index in number.items()}
    lost, drawn_lost = means["pruned"] - means["base"], drawn["pruned"] - drawn["base"]
    metrics: Metrics = {}
    for suffix, reference in (("", "base"), ("_net", CONTROL)) if lost > 0 else ():
        if reference in means:
            share = float(1 - (means["tuned"] - means[reference]) / lost)
            # Where some samples lost nothing, the share has no finite interval.
            some = (drawn_lost > 0).all()
            shares = 1 - (drawn["tuned"] - drawn[reference]) / drawn_lost if some else np.empty(0)
            metrics |= flat(f"{share_key(name)}{suffix}", estimate(share, shares, confidence))
    return metrics


def flat(key: str, found: Estimate) -> Metrics:
    """Return an estimate as metrics: `key`, and `key`_low and `key`_high where there is an interval."""
    bounds = {} if math.isnan(found.low) else {f"{key}_low": found.low, f"{key}_high": found.high}
    return {key: found.value, **bounds}
