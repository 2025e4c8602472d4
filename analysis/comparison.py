"""Compare the models of a run with one another: what metrics/details/report.json holds."""

import math
from dataclasses import dataclass

import numpy as np

from analysis.averages import average_accuracy, average_corrected
from analysis.contrasts import Contrast, accuracy_contrasts, perplexity_contrasts, value_contrasts
from analysis.estimates import estimate
from analysis.losses import MeanLosses, losses_by_text
from analysis.params import ReportParams
from analysis.recovery import Recovery, other_domains_first
from analysis.results import CONTROL, MODELS, PAIRS, Metrics, task_names
from analysis.rows import Runs
from analysis.significance import above_chance


@dataclass(frozen=True)
class Comparison:
    """All that can be said of a run's models from what was measured."""

    accuracies: list[Contrast]
    values: list[Contrast]  # of metrics of a question but an accuracy: exact match, F1, a probability
    perplexities: list[Contrast]
    recoveries: list[Recovery]  # other domains than the tuning's first
    guessing: dict[tuple[str, str], float]  # the probability of as many right answers by chance, by model and task

    def metrics(self) -> Metrics:
        """Return everything by the names of metrics/details/report.json."""
        found = {f"{model}_{task}_chance_p": p for (model, task), p in self.guessing.items()}
        for contrast in [*self.accuracies, *self.values, *self.perplexities]:
            found |= contrast.metrics()
        for recovery in self.recoveries:
            found |= recovery.metrics()
        return found


def compare(runs: Runs, chances: Metrics, own_domain: str | None, params: ReportParams) -> Comparison:
    """Compare a run's models, each a row of one result; `own_domain` is the text of the tuning's domain, if any."""
    losses = losses_by_text(runs, params)
    return Comparison(
        accuracy_contrasts(runs, PAIRS, params.level),
        value_contrasts(runs, PAIRS, params.level),
        perplexity_contrasts(losses, PAIRS, params.confidence),
        recoveries(losses, own_domain, params.confidence),
        compare_with_chance(runs, chances),
    )


def average_accuracies(evaluate: dict[str, Metrics], chances: dict[str, float]) -> Metrics:
    """Return each model's mean accuracy over the tasks, raw and corrected for chance, where there is one."""
    tasks = task_names(evaluate)
    averages = {}
    for model, metrics in evaluate.items():
        averages[f"{model}_average_acc"] = average_accuracy(metrics, tasks)
        averages[f"{model}_average_acc_chance_corrected"] = average_corrected(metrics, tasks, chances)
    return {key: value for key, value in averages.items() if not math.isnan(value)}


def compare_with_chance(runs: Runs, chances: Metrics) -> dict[tuple[str, str], float]:
    """Return, by model and task, the probability of its right answers, or more, by guessing."""
    return {
        (model, str(task)): above_chance(int(answers["acc"].sum()), len(answers), chances[str(task)])
        for model, (run,) in runs.items()
        for task, answers in run.questions.groupby("task")
        if task in chances
    }


def recoveries(losses: dict[str, MeanLosses], own_domain: str | None, confidence: float) -> list[Recovery]:
    """Return the share won back on every text on which pruning lost; `losses` are by text."""
    found = []
    for text in other_domains_first(list(losses), own_domain):
        mean = losses[text]
        if set(MODELS) <= set(mean.rows):
            (base, base_drawn), (pruned, pruned_drawn), (tuned, tuned_drawn) = (mean.of(model) for model in MODELS)
            lost, drawn_lost = pruned - base, pruned_drawn - base_drawn
            some = (drawn_lost > 0).all()  # where some samples lost nothing, the share has no finite interval
            if lost > 0:
                shares = []
                for reference in ("base", CONTROL):
                    if reference in mean.rows:
                        at, drawn = mean.of(reference)
                        between = 1 - (tuned_drawn - drawn) / drawn_lost if some else np.empty(0)
                        shares.append(estimate(1 - (tuned - at) / lost, between, confidence))
                found.append(Recovery(text, text == own_domain, *shares))
    return found
