"""reports/study.md: what pruning did to the model, what recovery brought back, and how sure that is."""

import math
from dataclasses import dataclass

import pandas as pd

from analysis.audit import Finding
from analysis.comparison import Comparison
from analysis.params import Pruning
from analysis.recovery import other_domains_first, share_text, won_by
from analysis.results import MODELS, Metrics, perplexity_sets, task_names
from analysis.run_differences import differences, verdicts
from analysis.samples import samples_section
from analysis.tables import (
    COSTS,
    MAJORITY,
    MISSING,
    checked,
    cost_markdown,
    layers_markdown,
    memory_origin,
    norms_markdown,
    quality_markdown,
    sizes_markdown,
)

UNITS = {"groups": "of the units in the pruned layers", "parameters": "of all parameters"}


@dataclass(frozen=True)
class RunReport:
    """Everything on the page of one run: metrics by model, tables, and the params that name the run."""

    pruning: Pruning
    level: float  # of significance
    evaluated_tokens: int  # in a perplexity window
    profiled_tokens: int  # in the forward pass that was profiled
    own_domain: str | None  # the perplexity set of the domain that the model was tuned on
    dequantised_from: str | None  # the tensor type of a GGUF base
    evaluate: dict[str, Metrics]
    profile: dict[str, Metrics]
    comparison: Comparison
    chances: Metrics
    baselines: pd.DataFrame  # what takes no model: guessing, the majority answer
    samples: dict[str, list[dict[str, str]]]
    losses: dict[str, pd.DataFrame | None]
    layers: pd.DataFrame | None
    quality: pd.DataFrame
    norms: pd.DataFrame  # acc_norm
    costs: pd.DataFrame
    sizes: pd.DataFrame
    findings: list[Finding]
    further: str  # the section on models beside the three, if any
    plots: list[str]


def run_page(report: RunReport) -> str:
    """Return the whole page as Markdown; a section whose numbers are all missing is left out."""
    pruning = report.pruning
    sections = [
        f"# Pruning study: {pruning.method}, {pruning.goal}{'' if pruning.budget else ' ' + UNITS[pruning.ratio_of]}",
        summary(report),
        quality(report),
        differences(report.comparison, list(report.evaluate), report.level) if any(report.evaluate.values()) else "",
        costs(report),
        report.further,
        removed(report),
        f"## Training{images(report, 'loss')}" if "loss" in report.plots else "",
        samples_section(report.samples),
        checks(report.findings),
        not_measured(missing(report)),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def summary(report: RunReport) -> str:
    """Return the findings in a few sentences, each only where its numbers are there."""
    lines = []
    if report.dequantised_from:
        lines.append(f"The base's weights were dequantised from {report.dequantised_from}: not the original model.")
    kept, after = report.costs.loc["pruned", ["parameters_percent", "parameters"]]
    if not math.isnan(kept):
        lines.append(f"Pruning left {kept:.2f} % of the base's parameters ({after:,.0f}).")
    if "parameters_nonzero" in report.costs:
        shares = [
            f"of the {model} model {100 - report.costs.loc[model, 'parameters_nonzero_percent']:.2f} %"
            for model in ("pruned", "tuned")
            if not math.isnan(report.costs.loc[model, "parameters_nonzero_percent"])
        ]
        lines.append(f"Set to zero, and still stored and multiplied, are {', '.join(shares)} of the base's parameters.")
    recoveries = {each.text: each for each in report.comparison.recoveries}
    for name in other_domains_first(perplexity_sets(report.evaluate), report.own_domain):
        base, pruned, tuned = (report.quality.loc[model, f"{name}_ppl"] for model in MODELS)
        if math.isnan(base + pruned):
            continue
        line = f"Perplexity on {name} went from {base:,.2f} to {pruned:,.2f} by pruning"
        if not math.isnan(tuned):
            line += f", and to {tuned:,.2f} by {won_by(name == report.own_domain)}"
        if name in recoveries:
            share = share_text(recoveries[name].share, 1 - report.level)
            line += f", which won back {share} of the lost log-perplexity"
        lines.append(f"{line}.")
    lines += verdicts(report.comparison.accuracies)
    return "\n".join(f"- {line}" for line in lines)


def quality(report: RunReport) -> str:
    """Return perplexities and accuracies."""
    if not any(report.evaluate.values()):
        return ""
    table = quality_markdown(
        report.quality, report.evaluate, report.comparison.accuracies, report.baselines, report.pruning
    )
    majority = MAJORITY if "majority answer" in report.baselines.index else ""
    text = f"""## Quality

Perplexity over windows of {report.evaluated_tokens} tokens: lower is better. Accuracy in percent ± one standard error:
higher is better.{in_precision(report)} The averages are of the row's tasks, raw and chance-corrected:
(accuracy - chance) / (1 - chance), so 0 is guessing and 100 is perfect. \\* differs from the base, † differs from the
pruned model (McNemar's exact test, Holm-adjusted, level {report.level:g}). {MISSING}: does not apply, or was not
measured.
{majority}
{table}"""
    if not report.norms.empty:
        text += "\n\nAccuracy by log-likelihood per character (acc_norm), where the task defines it:\n\n"
        text += norms_markdown(report.norms)
    return text + images(report, "perplexity", "accuracy")


def in_precision(report: RunReport) -> str:
    """Return the sentence that says in what the models' matrix products were taken."""
    found = {str(metrics["precision"]) for metrics in report.evaluate.values() if "precision" in metrics}
    return f" Matrix products in {' or '.join(sorted(found))}." if found else ""


def costs(report: RunReport) -> str:
    """Return parameters, computation, memory and speed."""
    if report.costs.isna().all(axis=None):
        return ""
    zeros = ""
    if "parameters_nonzero" in report.costs:
        zeros = """Zeros are stored and multiplied like any other weight: they lower neither parameters nor GMac nor
memory, and save no time without kernels that skip them.
"""
    return f"""## Cost

GMac: 10⁹ multiply-accumulates of one forward pass over {report.profiled_tokens} tokens, attention's products included.
Ratios are to the base. Speeds and peak memory are this machine's and vary from run to run; the rest does not.
{zeros}
{cost_markdown(report.costs)}

{memory_origin(report.profile)}""".rstrip()


def removed(report: RunReport) -> str:
    """Return the parameters before and after in the shape of the thesis's table 3, and every layer's widths."""
    parts = []
    if not report.sizes.empty:
        parts.append(sizes_markdown(report.sizes, report.pruning.goal))
    if report.layers is not None:
        parts.append(layers_markdown(report.layers) + images(report, "layers"))
    return "\n\n".join(["## What pruning removed", *parts]) if parts else ""


def images(report: RunReport, *names: str) -> str:
    """Return the Markdown of the plots among `names` that were drawn."""
    return "".join(f"\n\n![{name}](plots/{name}.png)" for name in names if name in report.plots)


def checks(findings: list[Finding]) -> str:
    """Return what the audit of the tables above found."""
    return f"## Checks\n\n{checked('quality, cost, and parameters before and after', findings)}"


def not_measured(names: list[str]) -> str:
    """Return the section that names what is missing."""
    listed = "\n".join(f"- {name}" for name in names)
    return f"## Not measured\n\nAbsent from this run, and so from the report:\n\n{listed}" if names else ""


def missing(report: RunReport) -> list[str]:
    """Return what the report would show but was not measured."""
    evaluated = [f"{name}_ppl" for name in perplexity_sets(report.evaluate)]
    evaluated += [f"{task}_acc" for task in task_names(report.evaluate)]
    names = []
    for model in report.evaluate:
        for stage, metrics, keys in (
            ("evaluate", report.evaluate[model], evaluated),
            ("profile", report.profile[model], [metric for metric, _, _ in COSTS if metric in report.costs]),
        ):
            place = f"stage {stage}@{model}"
            lacking = [f"{model}: {key} ({place})" for key in keys if key not in metrics]
            names += lacking if metrics else [f"{model}: all of {place}"]
        if not report.samples[model]:
            names.append(f"{model}: metrics/outcomes/{model}/samples.json")
    names += [f"what guessing scores in {task}" for task in task_names(report.evaluate) if task not in report.chances]
    if report.sizes.empty:
        names.append("parameters before and after: metrics/details/prune.json")
    if report.layers is None:
        names.append("heads and widths by layer: metrics/prune_layers.csv")
    names += [f"loss curve: metrics/{stage}_loss.csv" for stage, table in report.losses.items() if table is None]
    return names
