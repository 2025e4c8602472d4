"""The figures of a run's report."""

from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from analysis import figures
from analysis.figures import GREY, GRID, LIGHT, STYLE, plain_log_ticks
from analysis.results import CONTROL, MODELS, Metrics, perplexity_sets, task_names

COLOURS = dict(zip((*MODELS, CONTROL), figures.COLOURS, strict=False))
MARKERS = dict(zip((*MODELS, CONTROL), figures.MARKERS, strict=False))
TRAINING, VALIDATION = "#000000", "#CC79A7"
TRAININGS = {"base": "training of the base", "tune": "recovery of the pruned model"}
SMOOTHING = 50  # optimizer steps
NORMAL_95 = 1.96  # standard errors on either side of a 95 % interval


def draw_all(
    folder: Path,
    evaluate: dict[str, Metrics],
    chances: Metrics,
    layers: pd.DataFrame | None,
    losses: dict[str, pd.DataFrame | None],
) -> list[str]:
    """Draw every figure whose numbers are there into `folder` and return their names. `losses` are by stage."""
    drawn = {}
    # A base that was not trained here has a table without rows.
    trainings = {TRAININGS[stage]: table for stage, table in losses.items() if table is not None and len(table)}
    with plt.rc_context(STYLE):
        if trainings:
            drawn["loss"] = draw_losses(trainings)
        if perplexity_sets(evaluate):
            drawn["perplexity"] = draw_perplexities(evaluate)
        if task_names(evaluate):
            drawn["accuracy"] = draw_accuracies(evaluate, chances)
        if layers is not None:
            drawn["layers"] = draw_layers(layers)
        return figures.save(drawn, folder)


def draw_losses(losses: dict[str, pd.DataFrame]) -> Figure:
    """Draw training loss above validation loss, one column per training (columns step, split, loss).

    They share no axis: what is trained may be another loss, such as distillation's.
    """
    size = (max(8.5, 5.2 * len(losses)), 6)
    figure, panels = plt.subplots(2, len(losses), figsize=size, squeeze=False, sharex="col", layout="constrained")
    for (above, below), (title, table) in zip(panels.T, losses.items(), strict=True):
        train = table[table["split"] == "train"]
        above.plot(train["step"], train["loss"], color=LIGHT, linewidth=0.8, label="training")
        # At most a fifth of a short training, so that the mean still shows its course.
        smoothed = min(SMOOTHING, max(1, int(train["step"].max()) // 5)) if len(train) else 1
        # A row is the mean of the steps since the row before it.
        rows = max(1, smoothed // int(train["step"].min())) if len(train) else 1
        smooth = train["loss"].rolling(rows, min_periods=1, center=True).mean()
        above.plot(train["step"], smooth, color=TRAINING, linewidth=1.8, label=f"training, mean of {smoothed} steps")
        validation = table[table["split"] == "validation"]
        below.plot(
            validation["step"],
            validation["loss"],
            color=VALIDATION,
            marker="o",
            markersize=7,
            linewidth=1.8,
            label="validation (next token)",
        )
        above.set(title=title, ylabel="loss (nats per token)")
        below.set(xlabel="optimizer step", ylabel="loss (nats per token)")
        for axes in (above, below):
            axes.grid(axis="y", color=GRID)
            axes.legend(loc="upper right", frameon=False)
        below.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    return figure


def draw_perplexities(evaluate: dict[str, Metrics]) -> Figure:
    """Draw the models' perplexities on a logarithmic axis, where equal distances are equal losses."""
    sets = perplexity_sets(evaluate)
    measured = [model for model, metrics in evaluate.items() if any(f"{name}_ppl" in metrics for name in sets)]
    figure, panels = plt.subplots(
        len(sets), 1, figsize=(7.2, 0.6 + (0.7 + 0.5 * len(measured)) * len(sets)), squeeze=False, layout="constrained"
    )
    for axes, name in zip(panels[:, 0], sets, strict=True):
        values = {model: evaluate[model].get(f"{name}_ppl") for model in measured}
        start = min(value for value in values.values() if value is not None)
        for height, (model, value) in enumerate(values.items()):
            if value is None:
                axes.text(0.02, height, "not measured", transform=axes.get_yaxis_transform(), va="center", color=GREY)
                continue
            axes.plot([start, value], [height, height], color=COLOURS[model], linewidth=2, alpha=0.4)
            axes.plot(value, height, color=COLOURS[model], marker=MARKERS[model], markersize=11)
            base = values.get("base")
            times = "" if model == "base" or base is None else f"  ({value / base:.2f} x base)"
            axes.annotate(
                f"{value:,.2f}{times}", (value, height), (12, 0), textcoords="offset points", va="center", color="black"
            )
        axes.set_yticks(range(len(measured)), measured)
        axes.set_ylim(len(measured) - 0.5, -0.5)
        axes.tick_params(axis="y", length=0)
        axes.set_xscale("log")
        axes.margins(x=0.06)
        low, high = axes.get_xlim()
        axes.set_xlim(low, high * (high / low) ** 0.35)  # room for the numbers
        axes.set(title=f"perplexity on {name}")
        plain_log_ticks(axes.xaxis)
    panels[-1][0].set_xlabel("perplexity (logarithmic; lower is better)")
    return figure


def draw_accuracies(evaluate: dict[str, Metrics], chances: Metrics) -> Figure:
    """Draw accuracies with 95 % intervals, task by task, and what guessing would score."""
    tasks = task_names(evaluate)
    figure, axes = plt.subplots(figsize=(max(6.5, 0.87 * len(tasks) * len(evaluate)), 4.2), layout="constrained")
    for number, model in enumerate(evaluate):
        offset = 0.81 * (number - (len(evaluate) - 1) / 2) / len(evaluate)
        places = [place + offset for place, task in enumerate(tasks) if f"{task}_acc" in evaluate[model]]
        scored = [task for task in tasks if f"{task}_acc" in evaluate[model]]
        values = [100 * evaluate[model][f"{task}_acc"] for task in scored]
        errors = [100 * NORMAL_95 * evaluate[model].get(f"{task}_acc_stderr", 0.0) for task in scored]
        axes.errorbar(
            places,
            values,
            yerr=errors,
            fmt=MARKERS[model],
            color=COLOURS[model],
            markersize=10,
            capsize=4,
            linewidth=1.8,
            label=model,
        )
        for place, value in zip(places, values, strict=True):
            axes.annotate(
                f"{value:.1f}",
                (place, value),
                (9, 0),
                textcoords="offset points",
                va="center",
                fontsize=11,
                bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 0.5},
            )
    for place, task in enumerate(tasks):
        if task in chances:
            line = axes.hlines(100 * chances[task], place - 0.4, place + 0.47, color=GREY, linestyle="--")
            line.set_label("_" if place else "guessing")
    axes.set_xticks(range(len(tasks)), tasks)
    axes.set_xlim(-0.5, len(tasks) - 0.4)
    axes.set_ylim(bottom=0)
    axes.set_ylabel("accuracy (%), with 95 % interval")
    axes.grid(axis="y", color=GRID)
    handles, labels = axes.get_legend_handles_labels()
    order = sorted(range(len(labels)), key=lambda index: labels[index] == "guessing")
    figure.legend([handles[i] for i in order], [labels[i] for i in order], loc="outside upper center", ncols=5)
    return figure


def draw_layers(layers: pd.DataFrame) -> Figure:
    """Draw each layer's heads and MLP width, before and after pruning."""
    figure, panels = plt.subplots(1, 3, figsize=(11.5, 3.8), layout="constrained")
    names = (("query_heads", "query heads"), ("kv_heads", "key/value heads"), ("mlp_width", "MLP width (channels)"))
    for axes, (column, title) in zip(panels, names, strict=True):
        axes.bar(layers["layer"], layers[f"{column}_before"], color=LIGHT, label="before")
        axes.bar(layers["layer"], layers[column], color=COLOURS["pruned"], width=0.5, label="after pruning")
        axes.set(xlabel="layer", ylabel=title)
        axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=2)
    return figure
