"""The section of the report that says which differences are more than chance, by which test."""

import math

from analysis.recovery import other_domains_first, share_key, won_by
from analysis.results import CONTRASTS, Metrics, perplexity_sets, task_names
from analysis.tables import markdown, number, p_value, span

NET = """
Net of adaptation: 1 - (tuned - control) / (pruned - base) in log-perplexity, where control is the base tuned alike."""
CONTRAST_NAMES = {name: f"{model} against {reference}" for name, reference, model in CONTRASTS}


def significant(comparison: Metrics, contrast: str, task: str, level: float) -> bool:
    """Say whether the contrast's models differ in accuracy at `level`, after Holm's adjustment."""
    return comparison.get(f"{contrast}_{task}_mcnemar_p_holm", 1.0) < level


def verdicts(comparison: Metrics, tasks: list[str], level: float) -> list[str]:
    """Return a sentence per contrast: on which tasks the model is worse, on which better."""
    sentences = []
    for contrast, reference, model in CONTRASTS:
        differences = {task: comparison.get(f"{contrast}_{task}_acc_difference") for task in tasks}
        tested = {task: value for task, value in differences.items() if value is not None}
        apart = [task for task in tested if significant(comparison, contrast, task, level)]
        worse, better = [t for t in apart if tested[t] < 0], [t for t in apart if tested[t] > 0]
        if tested:
            sentences.append(
                f"Of {len(tested)} tasks, the {model} model is significantly worse than the {reference} on "
                f"{listed(worse)}, and better on {listed(better)}."
            )
    return sentences


def listed(names: list[str]) -> str:
    """Return how many names there are, and which."""
    return f"{len(names)} ({', '.join(names)})" if names else "none"


def differences(
    comparison: Metrics, evaluate: dict[str, Metrics], chances: Metrics, own_domain: str | None, level: float
) -> str:
    """Return the section: accuracies by McNemar, perplexities by the bootstrap, everything against guessing."""
    if not any(evaluate.values()):
        return ""
    parts = [
        "## Differences",
        accuracy_differences(comparison, task_names(evaluate), level),
        value_differences(comparison, level),
        perplexity_differences(comparison, perplexity_sets(evaluate), level),
        recovered(comparison, perplexity_sets(evaluate), own_domain, level),
        against_guessing(comparison, list(evaluate), [task for task in task_names(evaluate) if task in chances]),
    ]
    return "\n\n".join(part for part in parts if part)


def accuracy_differences(found: Metrics, tasks: list[str], level: float) -> str:
    """Return McNemar's tests as a table."""
    rows = []
    for contrast, title in CONTRAST_NAMES.items():
        for task in tasks:
            key = f"{contrast}_{task}"
            if f"{key}_mcnemar_p" in found:
                points = f"{100 * found[f'{key}_acc_difference']:+.2f}"
                counts = [f"{found[f'{key}_lost']:.0f}", f"{found[f'{key}_won']:.0f}"]
                tests = [p_value(found[f"{key}_mcnemar_p"]), p_value(found[f"{key}_mcnemar_p_holm"])]
                verdict = "yes" if significant(found, contrast, task, level) else "no"
                rows.append([title, task, points, *counts, *tests, verdict])
    if not rows:
        return "No two models were scored on the same questions, so no accuracy is compared."
    headings = ["contrast", "task", "difference (points)", "lost", "won", "p", "p (Holm)", "significant"]
    return f"""Accuracy: McNemar's exact test on the same questions. *Won* counts the questions that only the
contrast's first model answers right, *lost* those that only its second does. Holm's adjustment is over all {len(rows)}
tests of the table; level {level:g}.

{markdown(headings, rows, left=2)}"""


def value_differences(found: Metrics, level: float) -> str:
    """Return the tests of analysis/values.py as a table; nothing where there are none."""
    rows = []
    for key in found:
        name = key.removesuffix("_p_holm")
        if name == key or f"{name}_difference" not in found:
            continue
        contrast = max((each for each in CONTRAST_NAMES if name.startswith(f"{each}_")), key=len)
        difference = number(found[f"{name}_difference"], 4)
        tests = [p_value(found[f"{name}_p"]), p_value(found[key]), "yes" if found[key] < level else "no"]
        rows.append([CONTRAST_NAMES[contrast], name.removeprefix(f"{contrast}_"), difference, *tests])
    if not rows:
        return ""
    headings = ["contrast", "task and metric", "mean difference", "p", "p (Holm)", "significant"]
    return f"""Other metrics with a value for each question: McNemar's exact test where all values are 0 or 1, else the
paired t-test. Holm's adjustment is over all {len(rows)} tests of the table; level {level:g}.

{markdown(headings, rows, left=2)}"""


def perplexity_differences(found: Metrics, sets: list[str], level: float) -> str:
    """Return the ratios of perplexities with their intervals as a table."""
    rows = []
    for contrast, title in CONTRAST_NAMES.items():
        for name in sets:
            key = f"{contrast}_{name}_ppl_ratio"
            if key in found:
                low, high = found.get(f"{key}_low", math.nan), found.get(f"{key}_high", math.nan)
                verdict = "unknown" if math.isnan(low) else "yes" if low > 1 or high < 1 else "no"
                rows.append([title, name, number(found[key], 4), span(low, high, 4), verdict])
    if not rows:
        return "No two models were measured on the same windows, so no perplexity is compared."
    interval = interval_name(level)
    return f"""Perplexity: ratio of the two models' perplexities, with the {interval} of a bootstrap over windows that
draws the same windows for both; significant where the interval leaves out 1 (not adjusted for the number of intervals).
Windows count as independent, also those of one document.

{markdown(["contrast", "text", "perplexity ratio", interval, "significant"], rows, left=2)}"""


def recovered(found: Metrics, sets: list[str], own_domain: str | None, level: float) -> str:
    """Return the shares of the lost log-perplexity that tuning won back as a table, other domains first."""
    rows, net = [], False
    for name in other_domains_first(sets, own_domain):
        key = share_key(name)
        if key in found:
            rows.append([name, won_by(name, own_domain), *share_cells(found, key), *share_cells(found, f"{key}_net")])
            net = net or f"{key}_net" in found
    if not rows:
        return ""
    headings = ["text", "won back by", "share (%)", interval_name(level), "net of adaptation (%)", interval_name(level)]
    columns = len(headings) if net else 4
    text = "Share of the log-perplexity lost by pruning that tuning won back."
    if any(name == own_domain for name, *_ in rows):
        text += f" {own_domain} is of the domain that the\nmodel was tuned on, so its share is adaptation as well."
    if net:
        text += NET
    return f"{text}\n\n{markdown(headings[:columns], [row[:columns] for row in rows], left=2)}"


def share_cells(found: Metrics, key: str) -> list[str]:
    """Return a share and its interval in percent as they are printed."""
    value, low, high = (100 * found.get(f"{key}{suffix}", math.nan) for suffix in ("", "_low", "_high"))
    return [number(value, 2), span(low, high, 2)]


def against_guessing(found: Metrics, models: list[str], tasks: list[str]) -> str:
    """Return the tests of every accuracy against chance as a table."""
    if not tasks:
        return ""
    rows = [[model, *(p_value(found.get(f"{model}_{task}_chance_p", math.nan)) for task in tasks)] for model in models]
    return f"""Guessing: the probability of that many right answers, or more, by chance (exact binomial, not adjusted).

{markdown(["model", *tasks], rows)}"""


def interval_name(level: float) -> str:
    """Return what an interval is called: 95 % interval."""
    return f"{100 * (1 - level):g} % interval"
