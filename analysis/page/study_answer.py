"""The sentences on top of a study's page, which answer the question that the study asks."""

import math

from analysis.contrasts import average_contrast
from analysis.estimates import Estimate
from analysis.knee import Knee
from analysis.losses import mean_losses
from analysis.params import ReportParams
from analysis.results import perplexity_sets
from analysis.rows import Result, Row
from analysis.study_page import knees, mean_perplexity
from analysis.study_tables import base_row


def study_answer(base: Result, rows: list[Row], params: ReportParams) -> list[str]:
    """Return which method is best, how far it goes, at what cost, and how sure that is, on the first text."""
    sets = perplexity_sets({"base": base.evaluate})
    if not sets or not rows:
        return []
    name = sets[0]
    best = {
        ratio: by_perplexity([row for row in rows if row.ratio == ratio], name) for ratio in {r.ratio for r in rows}
    }
    wins = [ranked[0].line for ranked in best.values()]
    line = max(dict.fromkeys(wins), key=lambda each: (wins.count(each), -min(r.ratio for r in rows if r.line == each)))
    contested = [ranked for ranked in best.values() if ranked[0].line == line and len(ranked) > 1]
    sure = sum(ratio_of(ranked[1], ranked[0], name, params).excludes(1) for ranked in contested)
    text = f"{line} has the lowest perplexity on {name} at {wins.count(line)} of {len(best)} ratios"
    text += f", significantly below the next at {sure} of these" if contested else ""
    chosen = [row for row in rows if row.line == line]
    knee = knees(base, chosen, name, params).get(line, (None, ""))[0]
    sentences = [f"{text}.", *how_far(knee, params)]
    row = at_knee(chosen, knee)
    ratio = ratio_of(base_row(base), row, name, params)
    cost = f"With {100 * (1 - row.kept):.1f} % of the parameters removed, its perplexity is {change(ratio)}"
    if len(base.questions) and all(len(run.questions) for run in row.runs):
        runs = {"base": [base], "row": row.runs}
        points = average_contrast(runs, "base", "row", params.confidence).estimate.scaled(100)
        bounds = f"({points.low:+.1f} to {points.high:+.1f})"
        cost += f", and its average accuracy changes by {points.value:+.1f} points {bounds}"
    return [*sentences, f"{cost}."]


def ratio_of(reference: Row, row: Row, name: str, params: ReportParams) -> Estimate:
    """Return the ratio of two rows' perplexities on text `name`."""
    losses = mean_losses({"reference": reference.runs, "row": row.runs}, name, params)
    return losses.ratio("reference", "row", params.confidence)


def by_perplexity(rows: list[Row], name: str) -> list[Row]:
    """Return rows by their perplexity on text `name`, the lowest first."""
    return sorted(rows, key=lambda row: mean_perplexity(row, name))


def change(ratio: Estimate) -> str:
    """Return a ratio of perplexities as a change in percent."""
    sign, side = (1, "above") if ratio.value >= 1 else (-1, "below")
    low, high = sorted(100 * sign * (bound - 1) for bound in (ratio.low, ratio.high))
    bounds = f" ({low:.1f} to {high:.1f})" if ratio.bounded else ""
    return f"{100 * sign * (ratio.value - 1):.1f} %{bounds} {side} the base's"


def how_far(knee: Knee | None, params: ReportParams) -> list[str]:
    """Return the sentence on a knee, where there is one among the ratios studied."""
    if knee is None or math.isinf(knee.at):
        return []
    if knee.at == 0:
        return ["From the first percent removed, each further percent costs more than one percent of perplexity."]
    low, high = (100 * bound for bound in (knee.low, knee.high))
    bounds = f" ({100 * params.confidence:g} % interval {low:.1f} to {high:.1f})" if math.isfinite(low + high) else ""
    return [
        f"Beyond {100 * knee.at:.1f} % removed{bounds}, each further percent costs more than one percent of perplexity."
    ]


def at_knee(rows: list[Row], knee: Knee | None) -> Row:
    """Return the row that removes most without going beyond the knee, the smallest ratio where all do or none is."""
    within = [row for row in rows if knee and 1 - row.kept <= knee.at]
    return max(within, key=lambda row: row.ratio) if within else min(rows, key=lambda row: row.ratio)
