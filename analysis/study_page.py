"""reports/<study>/study.md: which method at which ratio, what it costs, and where the knee is."""

import numpy as np

from analysis.averages import MAJORITY_ROW
from analysis.contrasts import average_contrast, perplexity_contrasts
from analysis.knee import Knee, find_knee, sentence
from analysis.losses import mean_losses
from analysis.params import ReportParams
from analysis.results import perplexity_sets, task_names
from analysis.rows import Result, Row
from analysis.study_report import StudyReport
from analysis.study_tables import LEFT
from analysis.tables import MAJORITY, checked, memory_origin, text_markdown

CAPTIONS = {
    "perplexity": "Perplexity against the parameters kept",
    "accuracy": "Average accuracy against the parameters kept",
    "tasks": "Accuracy per task against the parameters kept",
    "pareto": "Perplexity against what a model costs; the line joins the models that no other beats in both",
    "layers": "Query heads and MLP channels left in each layer (of the first seed, where there are several)",
}


def winners(base: Result, rows: list[Row], params: ReportParams) -> list[str]:
    """Return one sentence per ratio: the best in perplexity and, where there are tasks, in accuracy; by how much."""
    sentences = []
    name = perplexity_sets({"base": base.evaluate})[0]
    for ratio in sorted({row.ratio for row in rows}):
        here = [row for row in rows if row.ratio == ratio]
        by_perplexity = sorted(here, key=lambda row: mean_perplexity(row, name))
        best = by_perplexity[0]
        lower = f", {lower_than(best, by_perplexity[1], name, params)}" if len(here) > 1 else ""
        sentences.append(
            f"At ratio {ratio:g} ({100 * best.kept:.1f} % of the parameters kept) **{best.line}** has the lowest "
            f"perplexity on {name}, {mean_perplexity(best, name):,.2f} against the base's "
            f"{base.evaluate[f'{name}_ppl']:,.2f}{lower}."
        )
        if task_names({"base": base.evaluate}):
            sentences[-1] += f" {most_accurate(base, here, params)}"
    return sentences


def most_accurate(base: Result, rows: list[Row], params: ReportParams) -> str:
    """Return the sentence on the best of `rows` in average accuracy."""
    accurate, *others = sorted(rows, key=lambda row: -mean_accuracy(row))
    higher = f", {higher_than(accurate, others[0], params)}" if others else ""
    return (
        f"**{accurate.line}** has the highest average accuracy, {mean_accuracy(accurate):.2f} against the base's "
        f"{base.average:.2f}{higher}."
    )


def mean_perplexity(row: Row, name: str) -> float:
    """Return the mean perplexity on text `name` over the row's runs."""
    return float(np.mean(row.values("evaluate", f"{name}_ppl")))


def mean_accuracy(row: Row) -> float:
    """Return the mean average accuracy over the row's runs, in percent."""
    return float(np.mean([run.average for run in row.runs]))


def lower_than(best: Row, following: Row, name: str, params: ReportParams) -> str:
    """Return how the best perplexity compares with the next: a ratio, its interval, and whether it is significant."""
    losses = {name: mean_losses({row.label: row.runs for row in (best, following)}, name, params)}
    (found,) = perplexity_contrasts(losses, [(following.label, best.label)], params.confidence)
    ratio = found.estimate
    # As many digits as it takes to see that the bounds are two, and on which side of 1.
    digits = next((each for each in range(3, 6) if len({1, round(ratio.low, each), round(ratio.high, each)}) == 3), 6)
    value, low, high = (f"{each:.{digits}f}" for each in (ratio.value, ratio.low, ratio.high))
    judged = "significantly lower than" if found.significant else "not significantly lower than"
    return f"{judged} {following.line}'s (ratio {value}, {low} to {high})"


def higher_than(best: Row, following: Row, params: ReportParams) -> str:
    """Return how the best average accuracy compares with the next: points, their interval, and the judgement."""
    runs = {row.label: row.runs for row in (best, following)}
    found = average_contrast(runs, following.label, best.label, params.confidence)
    points = found.estimate.scaled(100)
    judged = "significantly above" if found.significant else "not significantly above"
    return f"{judged} {following.line}'s ({points.value:+.2f} points, {points.low:+.2f} to {points.high:+.2f})"


def knees(base: Result, rows: list[Row], name: str, params: ReportParams) -> dict[str, tuple[Knee | None, str]]:
    """Return every line's knee on text `name` with its sentence, (None, "") without one; formats remove nothing."""
    result = {}
    for line in dict.fromkeys(row.line for row in rows if not row.format):
        points = sorted((row for row in rows if row.line == line), key=lambda row: -row.kept)
        losses = mean_losses({"base": [base]} | {row.label: row.runs for row in points}, name, params)
        removed = np.array([0.0, *(1 - row.kept for row in points)])
        knee = find_knee(removed, losses.measured, losses.drawn, params.confidence)
        ratios = [0.0, *(row.ratio for row in points)]
        text = sentence(line, knee, list(removed), ratios, params.confidence) if knee else ""
        result[line] = knee, text
    return result


def knee_list(found: dict[str, tuple[Knee | None, str]]) -> str:
    """Return the sentences of `knees` as a Markdown list, the lines that are too short for a knee in one item."""
    items = [text for knee, text in found.values() if knee]
    if short := [f"**{line}**" for line, (knee, _) in found.items() if knee is None]:
        items.append(f"No knee, which takes at least two ratios of different sizes: {', '.join(short)}.")
    return "\n".join(f"- {text}" for text in items)


def study_page(report: StudyReport, plots: list[str]) -> str:
    """Return the page as Markdown; `plots` are the figures that were drawn."""
    base, rows, params = report.base, report.rows, report.params
    tables = {title: text_markdown(text, LEFT) for title, text in report.texts.items()}
    level = f"{100 * params.confidence:g} %"
    lacking = f"\nNot there yet: {', '.join(report.missing)}.\n" if report.missing else ""
    seeds = max(len(row.runs) for row in rows)
    repeated = f" Mean ± standard deviation over {seeds} seeds." if seeds > 1 else ""
    and_seeds, every_seed = (" and seeds", ", in every seed") if seeds > 1 else ("", "")
    texts = perplexity_sets({"base": base.evaluate})
    knee_text = "\n\n".join(f"On {name}:\n\n{knee_list(knees(base, rows, name, params))}" for name in texts)
    in_llama_cpp = any(row.format.startswith("gguf") for row in rows)
    engines = "Those of a GGUF are llama.cpp's, of the others torch's.\n" if in_llama_cpp else ""
    figures = "\n\n".join(f"{CAPTIONS[name]}:\n\n![{CAPTIONS[name]}](plots/{name}.png)" for name in plots)
    return f"""# Study {report.name}
{lacking}
## Which method at which ratio

{chr(10).join(f"- {answer}" for answer in winners(base, rows, params))}

## The knee

The knee is the share removed beyond which one more percent of the base's parameters costs more than one percent of
perplexity. Between the ratios studied the curve is a monotone cubic through the measured points.
Intervals hold {level} of a bootstrap over windows{and_seeds}; they do not cover what the curve does between the
ratios, which finer ratios show.

{knee_text}

## Quality

Perplexity: lower is better. Accuracy in percent: higher is better.{repeated} **Bold**: the best of its ratio.
\\* differs from the base, level {params.level:g}: perplexity where the interval of the ratio leaves out 1,
accuracy by McNemar's exact test, Holm-adjusted over all variants and tasks{every_seed}. Chance-corrected:
(accuracy - chance) / (1 - chance), so 0 is guessing.
{MAJORITY if MAJORITY_ROW in report.quality.index else ""}
{tables["quality"]}

## Differences from the base

Perplexity as a ratio with its {level} interval, accuracy in points.

{tables["differences"]}

## Cost

The percentage of the base's value stands beside each quantity. Speeds and peak memory are those of the machine that
ran the variants.
{engines}
{tables["cost"]}

{memory_origin(report.runs)}

## Checks

{checked("quality and cost", report.findings)}

## Plots

{figures}

Each table is here as Markdown, CSV (not rounded) and LaTeX, each plot as PNG and SVG.
"""
