"""The section of a run's report that says which differences are more than chance, by which test."""

import math

from analysis.comparison import Comparison
from analysis.contrasts import Contrast
from analysis.estimates import Estimate
from analysis.recovery import Recovery
from analysis.tables import markdown, number, p_value, span

NET = """
Net of adaptation: 1 - (tuned - control) / (pruned - base) in log-perplexity, where control is the base tuned alike."""
VERDICTS = {True: "yes", False: "no", None: "unknown"}


def verdicts(accuracies: list[Contrast]) -> list[str]:
    """Return a sentence per pair of models: on which tasks the model is worse, on which better."""
    sentences = []
    for reference, model in dict.fromkeys((each.reference, each.model) for each in accuracies):
        tested = [each for each in accuracies if (each.reference, each.model) == (reference, model)]
        worse = [each.name for each in tested if each.significant and each.estimate.value < 0]
        better = [each.name for each in tested if each.significant and each.estimate.value > 0]
        sentences.append(
            f"Of {len(tested)} tasks, the {model} model is significantly worse than the {reference} on "
            f"{listed(worse)}, and better on {listed(better)}."
        )
    return sentences


def listed(names: list[str]) -> str:
    """Return how many names there are, and which."""
    return f"{len(names)} ({', '.join(names)})" if names else "none"


def differences(comparison: Comparison, models: list[str], level: float) -> str:
    """Return the section: accuracies by McNemar, perplexities by the bootstrap, everything against guessing."""
    parts = [
        "## Differences",
        accuracy_differences(comparison.accuracies, level),
        value_differences(comparison.values, level),
        perplexity_differences(comparison.perplexities, level),
        recovered(comparison.recoveries, level),
        against_guessing(comparison.guessing, models),
    ]
    return "\n\n".join(part for part in parts if part)


def accuracy_differences(contrasts: list[Contrast], level: float) -> str:
    """Return McNemar's tests as a table."""
    if not contrasts:
        return "No two models were scored on the same questions, so no accuracy is compared."
    rows = [
        [each.title, each.name, f"{100 * each.estimate.value:+.2f}", str(each.lost), str(each.won), *tests(each)]
        for each in contrasts
    ]
    headings = ["contrast", "task", "difference (points)", "lost", "won", "p", "p (Holm)", "significant"]
    return f"""Accuracy: McNemar's exact test on the same questions. *Won* counts the questions that only the
contrast's first model answers right, *lost* those that only its second does. Holm's adjustment is over all {len(rows)}
tests of the table; level {level:g}.

{markdown(headings, rows, left=2)}"""


def tests(contrast: Contrast) -> list[str]:
    """Return a contrast's p-values and verdict as they are printed."""
    return [p_value(contrast.p), p_value(contrast.p_holm), VERDICTS[contrast.significant]]


def value_differences(contrasts: list[Contrast], level: float) -> str:
    """Return the tests of other metrics of each question as a table; nothing where there are none."""
    if not contrasts:
        return ""
    rows = [
        [each.title, f"{each.name}_{each.metric}", number(each.estimate.value, 4), *tests(each)] for each in contrasts
    ]
    headings = ["contrast", "task and metric", "mean difference", "p", "p (Holm)", "significant"]
    return f"""Other metrics with a value for each question: McNemar's exact test where all values are 0 or 1, else the
paired t-test. Holm's adjustment is over all {len(rows)} tests of the table; level {level:g}.

{markdown(headings, rows, left=2)}"""


def perplexity_differences(contrasts: list[Contrast], level: float) -> str:
    """Return the ratios of perplexities with their intervals as a table."""
    if not contrasts:
        return "No two models were measured on the same windows, so no perplexity is compared."
    rows = [[each.title, each.name, *cells(each.estimate, 4), VERDICTS[each.significant]] for each in contrasts]
    interval = interval_name(level)
    return f"""Perplexity: ratio of the two models' perplexities, with the {interval} of a bootstrap over windows that
draws the same windows for both; significant where the interval leaves out 1 (not adjusted for the number of intervals).
Windows are treated as independent, even those of the same document.

{markdown(["contrast", "text", "perplexity ratio", interval, "significant"], rows, left=2)}"""


def recovered(recoveries: list[Recovery], level: float) -> str:
    """Return the shares of the lost log-perplexity that tuning won back as a table."""
    if not recoveries:
        return ""
    net = any(each.net for each in recoveries)
    headings = ["text", "won back by", "share (%)", interval_name(level)]
    rows = [[each.text, each.won_by, *cells(each.share.scaled(100), 2)] for each in recoveries]
    text = "Share of the log-perplexity lost by pruning that tuning won back."
    for own in (each.text for each in recoveries if each.own_domain):
        text += f" {own} is from the domain that the\nmodel was tuned on, so its share includes adaptation."
    if net:
        headings += ["net of adaptation (%)", interval_name(level)]
        for row, each in zip(rows, recoveries, strict=True):
            row += cells((each.net or Estimate(math.nan)).scaled(100), 2)
        text += NET
    return f"{text}\n\n{markdown(headings, rows, left=2)}"


def cells(estimate: Estimate, decimals: int) -> list[str]:
    """Return a number and its interval as they are printed."""
    return [number(estimate.value, decimals), span(estimate.low, estimate.high, decimals)]


def against_guessing(found: dict[tuple[str, str], float], models: list[str]) -> str:
    """Return the tests of every accuracy against chance as a table."""
    if not found:
        return ""
    tasks = list(dict.fromkeys(task for _, task in found))
    rows = [[model, *(p_value(found.get((model, task), math.nan)) for task in tasks)] for model in models]
    return f"""Guessing: the probability of that many right answers, or more, by chance (exact binomial, not adjusted).

{markdown(["model", *tasks], rows)}"""


def interval_name(level: float) -> str:
    """Return what an interval is called: 95 % interval."""
    return f"{100 * (1 - level):g} % interval"
