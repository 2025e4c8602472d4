"""The figures of a study, as PNG and SVG."""

from collections.abc import Callable
from functools import partial
from math import ceil
from operator import attrgetter
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, StrMethodFormatter

from analysis import figures
from analysis.figures import COLOURS, GREY, GRID, MARKERS, STYLE, plain_log_ticks
from analysis.results import Metrics, perplexity_sets, task_names
from analysis.rows import Result, Row

LEGEND_INCHES = 1.6  # of an entry
MARK_INCHES, LETTER_INCHES = 0.8, 0.075  # of a longer entry: its mark with the gaps, and each letter
KEPT = "parameters kept (% of the base)"
Value = Callable[[Result], float]

# What a model can cost: the metric, the axis, its unit, and whether more is better.
COSTS = (
    ("parameters", "parameters (million)", 1e6, False),
    ("gmacs", "GMac", 1, False),
    ("weights_mib", "weights (MiB)", 1, False),
    ("peak_memory_mib", "peak memory (MiB)", 1, False),
    ("decode_tokens_per_second", "decode speed (tokens/s)", 1, True),
)
WIDTHS = (("query_heads", "query heads"), ("mlp_width", "MLP channels"))


def draw_all(folder: Path, base: Result, rows: list[Row], chances: Metrics) -> list[str]:
    """Draw every figure into `folder` and return their names."""
    drawn = {}
    with plt.rc_context(STYLE):
        if perplexity_sets({"base": base.evaluate}):
            drawn["perplexity"] = draw_perplexities(base, rows)
        if task_names({"base": base.evaluate}):
            drawn["accuracy"] = draw_average(base, rows, chances)
            drawn["tasks"] = draw_tasks(base, rows, chances)
        if perplexity_sets({"base": base.evaluate}):
            drawn["pareto"] = draw_pareto(base, rows)
        drawn["layers"] = draw_layers([row for row in rows if not row.format])
        return figures.save(drawn, folder, svg=True)


def styles(rows: list[Row]) -> dict[str, dict]:
    """Return how each line is drawn: a colour and a marker a method and format, open and dashed where it was tuned."""
    kinds = list(dict.fromkeys((row.method, row.format) for row in rows))
    result = {}
    for row in rows:
        number, tuned = kinds.index((row.method, row.format)), row.tuned
        turn, place = divmod(number, len(COLOURS))
        colour, marker = COLOURS[place], MARKERS[(place + turn) % len(MARKERS)]  # no pair twice in 49 methods
        result[row.line] = {
            "color": colour, "marker": marker, "markersize": 9, "linewidth": 1.8,
            "markerfacecolor": "white" if tuned else colour, "markeredgewidth": 1.8,
            "linestyle": "--" if tuned else ("-", "-.", ":")[turn % 3],
        }  # fmt: skip
    return result


def draw_lines(axes: Axes, base: Result, rows: list[Row], value: Value) -> None:
    """Draw `value` against the parameters kept: a line a method from the base on, a bar of one deviation for seeds."""
    style = styles(rows)
    for line in style:
        points = sorted((row for row in rows if row.line == line), key=lambda row: -row.kept)
        kept = [100 * row.kept for row in points]
        measured = [[value(run) for run in row.runs] for row in points]
        deviations = [float(np.std(each, ddof=1)) if len(each) > 1 else 0.0 for each in measured]
        means = [float(np.mean(each)) for each in measured]
        if not points[0].tuned:
            axes.plot([100, kept[0]], [value(base), means[0]], color=style[line]["color"], linewidth=1.8, alpha=0.5)
        axes.errorbar(kept, means, yerr=deviations if any(deviations) else None, capsize=4, label=line, **style[line])
    axes.plot(100, value(base), marker="*", markersize=15, color="black", linestyle="none", label="base")
    axes.set_xlabel(KEPT)
    axes.invert_xaxis()
    axes.grid(axis="y", color=GRID)


def evaluated(run: Result, metric: str, scale: float = 1) -> float:
    """Return what was measured of a run."""
    return scale * run.evaluate[metric]


def legend(figure: Figure, axes: Axes) -> None:
    """Put the legend above the figure, where it hides nothing, in as few rows as its width allows."""
    handles, labels = axes.get_legend_handles_labels()
    inches = max(LEGEND_INCHES, MARK_INCHES + LETTER_INCHES * max(map(len, labels)))
    height = ceil(len(labels) / max(1, int(figure.get_figwidth() / inches)))
    figure.legend(handles, labels, loc="outside upper center", ncols=ceil(len(labels) / height))


def draw_perplexities(base: Result, rows: list[Row]) -> Figure:
    """Draw perplexity, on a logarithmic axis, against the parameters kept; a panel a text."""
    names = perplexity_sets({"base": base.evaluate})
    figure, panels = plt.subplots(
        1, len(names), figsize=(max(8, 6 * len(names)), 5), squeeze=False, layout="constrained"
    )
    for axes, name in zip(panels[0], names, strict=True):
        draw_lines(axes, base, rows, partial(evaluated, metric=f"{name}_ppl"))
        axes.set_yscale("log")
        axes.set(ylabel=f"perplexity on {name}\n(logarithmic)")
        plain_log_ticks(axes.yaxis)
    legend(figure, panels[0][0])
    return figure


def draw_average(base: Result, rows: list[Row], chances: Metrics) -> Figure:
    """Draw the average accuracy against the parameters kept."""
    figure, axes = plt.subplots(figsize=(10, 5.4), layout="constrained")
    draw_lines(axes, base, rows, attrgetter("average"))
    tasks = task_names({"base": base.evaluate})
    if set(tasks) <= set(chances):
        axes.axhline(
            100 * sum(chances[task] for task in tasks) / len(tasks), color=GREY, linestyle="--", label="guessing"
        )
    axes.set(ylabel=f"average accuracy of {len(tasks)} tasks (%)")
    legend(figure, axes)
    return figure


def draw_tasks(base: Result, rows: list[Row], chances: Metrics) -> Figure:
    """Draw the accuracy on every task against the parameters kept; a panel a task."""
    tasks = task_names({"base": base.evaluate})
    columns = min(3, len(tasks))
    height = ceil(len(tasks) / columns)
    figure, panels = plt.subplots(
        height, columns, figsize=(max(10, 4.8 * columns), 4.4 * height + 0.6), squeeze=False, layout="constrained"
    )
    for axes, task in zip(panels.flat, tasks, strict=False):
        draw_lines(axes, base, rows, partial(evaluated, metric=f"{task}_acc", scale=100))
        if task in chances:
            axes.axhline(100 * chances[task], color=GREY, linestyle="--", label="guessing")
        axes.set(title=task, ylabel="accuracy (%)")
    for axes in panels.flat[len(tasks) :]:
        axes.set_visible(False)
    legend(figure, panels[0][0])
    return figure


def draw_pareto(base: Result, rows: list[Row]) -> Figure:
    """Draw perplexity against each cost, and the front: the models that no other beats in both."""
    name = perplexity_sets({"base": base.evaluate})[0]
    style = styles(rows)
    shown = [cost for cost in COSTS if cost[0] in base.profile]
    height = ceil(len(shown) / 2)
    figure, panels = plt.subplots(height, 2, figsize=(11, 0.6 + 4 * height), squeeze=False, layout="constrained")
    for axes, (metric, title, unit, more) in zip(panels.flat, shown, strict=False):
        points = [(base.profile[metric] / unit, base.evaluate[f"{name}_ppl"])]
        axes.plot(*points[0], marker="*", markersize=15, color="black", linestyle="none", label="base")
        for line, how in style.items():
            here = [
                (
                    float(np.mean(row.values("profile", metric))) / unit,
                    float(np.mean(row.values("evaluate", f"{name}_ppl"))),
                )
                for row in rows
                if row.line == line and row.values("profile", metric)
            ]
            axes.plot([x for x, _ in here], [y for _, y in here], label=line, **{**how, "linestyle": "none"})
            points += here
        front = pareto_front(points, more)
        axes.plot(*zip(*front, strict=True), color=GREY, linewidth=1.5, drawstyle="steps-post", zorder=0, label="front")
        axes.set_yscale("log")
        axes.set(xlabel=title, ylabel=f"perplexity on {name} (logarithmic)")
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.6g}"))
        axes.grid(color=GRID)
        plain_log_ticks(axes.yaxis)
    for axes in panels.flat[len(shown) :]:
        axes.set_visible(False)
    legend(figure, panels[0][0])
    return figure


def pareto_front(points: list[tuple[float, float]], more: bool) -> list[tuple[float, float]]:
    """Return the (cost, perplexity) points that no other beats in both, from cheap to dear.

    `more`: the cost is a speed: more is better.
    """
    front: list[tuple[float, float]] = []
    for point in sorted(set(points), key=lambda each: (-each[0] if more else each[0], each[1])):
        if not front or point[1] < front[-1][1]:
            front.append(point)
    return front


def draw_layers(rows: list[Row]) -> Figure:
    """Draw what is left of each layer's query heads and MLP channels: a row a variant, a column a layer, in percent."""
    tables = [row.runs[0].layers for row in rows]
    labels = [f"{row.line} {row.ratio:g}" for row in rows]
    layers = max(len(table) for table in tables if table is not None)
    figure, panels = plt.subplots(
        1, 2, figsize=(max(9, 4 + 0.75 * layers), 2 + 0.4 * len(rows)), sharey=True, layout="constrained"
    )
    for axes, (column, title) in zip(panels, WIDTHS, strict=True):
        left = np.full((len(rows), layers), np.nan)
        for place, table in enumerate(tables):
            if table is not None:
                left[place, : len(table)] = 100 * table[column] / table[f"{column}_before"]
        image = axes.imshow(left, cmap="cividis", vmin=0, vmax=100, aspect="auto")
        if layers <= 12:
            for (place, layer), share in np.ndenumerate(left):
                axes.text(layer, place, number_of(tables[place], column, layer), ha="center", va="center", fontsize=10,
                          color="white" if share < 60 else "black")  # fmt: skip
        axes.set(title=title, xlabel="layer")
        axes.xaxis.set_major_locator(MaxNLocator(12, integer=True))
        axes.set_yticks(range(len(labels)), labels)
        axes.tick_params(length=0)
    figure.colorbar(image, ax=panels, label="left after pruning (% of the layer's own)")
    return figure


def number_of(table: pd.DataFrame | None, column: str, layer: int) -> str:
    """Return what a layer has left, as it is printed into the figure."""
    return "" if table is None or layer >= len(table) else f"{table[column].iloc[layer]}"
