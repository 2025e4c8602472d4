"""reports/run.md: what pruning did to the model, what recovery brought back, and how sure that is."""

import math

import pandas as pd

from analysis.audit import Finding
from analysis.averages import MAJORITY_ROW
from analysis.contrasts import PERPLEXITY
from analysis.params import Pruning
from analysis.quality import marks_of, quality_text, tasks_of
from analysis.recovery import other_domains_first, share_text, won_by
from analysis.results import CONTROL, MODELS
from analysis.run_differences import differences, verdicts
from analysis.run_report import RunReport
from analysis.samples import samples_section
from analysis.tables import (
    COSTS,
    DECIMALS,
    MAJORITY,
    MISSING,
    checked,
    cost_text,
    layers_markdown,
    memory_origin,
    number,
    sizes_markdown,
    text_markdown,
)

UNITS = {"groups": "of the units in the pruned layers", "parameters": "of all parameters"}


def run_page(report: RunReport, plots: list[str], further: str) -> str:
    """Return the whole page as Markdown; a section whose numbers are all missing is left out.

    `plots` are the figures that were drawn, `further` the section on models beside the three, if any.
    """
    pruning = report.pruning
    compared = differences(report.comparison, list(report.results), report.params.level)
    sections = [
        f"# Pruning run: {pruning.method}, {pruning.goal}{'' if pruning.budget else ' ' + UNITS[pruning.ratio_of]}",
        summary(report),
        quality(report, plots),
        compared if any(report.evaluate.values()) else "",
        costs(report),
        further,
        removed(report, plots),
        f"## Training{images(plots, 'loss')}" if "loss" in plots else "",
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
            f"{100 - report.costs.loc[model, 'parameters_nonzero_percent']:.2f} % of them in the {model} model"
            for model in ("pruned", "tuned")
            if not math.isnan(report.costs.loc[model, "parameters_nonzero_percent"])
        ]
        lines.append(f"Parameters set to zero are still stored and multiplied: {', '.join(shares)}.")
    texts = [each.name for each in report.measures if each.metric == PERPLEXITY]
    recoveries = {each.text: each for each in report.comparison.recoveries}
    for name in other_domains_first(texts, report.own_domain):
        base, pruned, tuned = (report.quality.loc[model, f"{name}_ppl"] for model in MODELS)
        if math.isnan(base + pruned):
            continue
        line = f"Pruning changed the perplexity on {name} from {base:,.2f} to {pruned:,.2f}"
        if not math.isnan(tuned):
            line += f"; {won_by(name == report.own_domain)} changed it to {tuned:,.2f}"
        if name in recoveries:
            share = share_text(recoveries[name].share, report.params.confidence)
            line += f", winning back {share} of the lost log-perplexity"
        lines.append(f"{line}.")
    lines += verdicts(report.comparison.accuracies)
    return "\n".join(f"- {line}" for line in lines)


def quality(report: RunReport, plots: list[str]) -> str:
    """Return perplexities and accuracies."""
    if not any(report.evaluate.values()):
        return ""
    columns = report.measures
    errors = {
        (model, task): 100 * result.evaluate[f"{task}_acc_stderr"]
        for model, result in report.results.items()
        for task in tasks_of(columns)
        if f"{task}_acc_stderr" in result.evaluate
    }
    identity = pd.DataFrame(
        {model: [model, *variant(model, report.pruning)] for model in report.quality.index},
        index=["model", "ratio", "method"],
    ).T
    marks = marks_of(report.comparison.accuracies)
    text = quality_text(report.quality, columns, identity, errors, marks)
    majority = MAJORITY if MAJORITY_ROW in report.quality.index else ""
    section = f"""## Quality

Perplexity over windows of {report.evaluated_tokens} tokens: lower is better. Accuracy in percent ± one standard error:
higher is better.{in_precision(report)} The averages are over the row's tasks, raw and chance-corrected:
(accuracy - chance) / (1 - chance), so 0 is guessing and 100 is perfect. \\* differs from the base, † differs from the
pruned model (McNemar's exact test, Holm-adjusted, level {report.params.level:g}). {MISSING}: does not apply, or was not
measured.
{majority}
{text_markdown(text, left=3)}"""
    if not report.norms.empty:
        norms = report.norms.map(lambda score: number(score, DECIMALS)).rename_axis("model").reset_index()
        section += "\n\nAccuracy by log-likelihood per character (acc_norm), where the task defines it:\n\n"
        section += text_markdown(norms)
    return section + images(plots, "perplexity", "accuracy")


def variant(model: str, pruning: Pruning) -> tuple[str, str]:
    """Return the thesis's first two columns, pruning ratio and method, for a row of the table."""
    if model not in ("pruned", "tuned"):
        return {"base": "0 %", CONTROL: "0 % (tuned)"}.get(model, MISSING), MISSING
    return pruning.goal + (" (tuned)" if model == "tuned" else ""), pruning.method


def in_precision(report: RunReport) -> str:
    """Return the sentence that says in what the models' matrix products were taken."""
    found = {str(result.evaluate["precision"]) for result in report.results.values() if "precision" in result.evaluate}
    return f" Matrix products in {' or '.join(sorted(found))}." if found else ""


def costs(report: RunReport) -> str:
    """Return parameters, computation, memory and speed."""
    if report.costs.isna().all(axis=None):
        return ""
    text = cost_text(report.costs, pd.DataFrame({"model": report.costs.index}, index=report.costs.index))
    zeros = ""
    if "parameters_nonzero" in report.costs:
        zeros = """Zeros are stored and multiplied like any other weight: they lower neither parameters nor GMac nor
memory, and save no time without kernels that skip them.
"""
    return f"""## Cost

GMac: 10⁹ multiply-accumulates of one forward pass over {report.profiled_tokens} tokens, attention's products included.
Percentages are of the base. Speeds and peak memory are this machine's and vary from run to run; the rest does not.
{zeros}
{text_markdown(text)}

{memory_origin(report.runs)}""".rstrip()


def removed(report: RunReport, plots: list[str]) -> str:
    """Return the parameters before and after in the shape of the thesis's table 3, and every layer's widths."""
    parts = []
    if not report.sizes.empty:
        parts.append(sizes_markdown(report.sizes, report.pruning.goal))
    if report.layers is not None:
        parts.append(layers_markdown(report.layers) + images(plots, "layers"))
    return "\n\n".join(["## What pruning removed", *parts]) if parts else ""


def images(plots: list[str], *names: str) -> str:
    """Return the Markdown of the plots among `names` that were drawn."""
    return "".join(f"\n\n![{name}](plots/{name}.png)" for name in names if name in plots)


def checks(findings: list[Finding]) -> str:
    """Return what the audit of the tables above found."""
    return f"## Checks\n\n{checked('quality, cost, and parameters before and after', findings)}"


def not_measured(names: list[str]) -> str:
    """Return the section that names what is missing."""
    listed = "\n".join(f"- {name}" for name in names)
    return f"## Not measured\n\nAbsent from this run, and so from the report:\n\n{listed}" if names else ""


def missing(report: RunReport) -> list[str]:
    """Return what the report would show but was not measured."""
    evaluated = [each.key for each in report.measures if each.name]
    names = []
    for model, result in report.results.items():
        for stage, metrics, keys in (
            ("evaluate", result.evaluate, evaluated),
            ("profile", result.profile, [metric for metric, _, _ in COSTS if metric in report.costs]),
        ):
            place = f"stage {stage}@{model}"
            lacking = [f"{model}: {key} ({place})" for key in keys if key not in metrics]
            names += lacking if metrics else [f"{model}: all of {place}"]
        if not report.samples[model]:
            names.append(f"{model}: metrics/outcomes/{model}/samples.json")
    names += [f"what guessing scores in {task}" for task in tasks_of(report.measures) if task not in report.chances]
    if report.sizes.empty:
        names.append("parameters before and after: metrics/details/prune.json")
    if report.layers is None:
        names.append("heads and widths by layer: metrics/prune_layers.csv")
    names += [f"loss curve: metrics/{stage}_loss.csv" for stage, table in report.losses.items() if table is None]
    return names
