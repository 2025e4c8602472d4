"""The models of section `models` beside base, pruned and tuned: what each costs and how good it is."""

import math
from pathlib import Path

import matplotlib.pyplot as plt

from analysis import figures
from analysis.averages import average_accuracy
from analysis.figures import COLOURS, STYLE, plain_log_ticks
from analysis.results import CONTROL, MODELS, Metrics, perplexity_sets, read_by_model, task_names
from analysis.tables import COSTS, DECIMALS, markdown, number

SHOWN = [cost for cost in COSTS if cost[0] not in ("parameters", "parameters_nonzero", "gmacs")]
PLOT = "size"


def further_section(folders: dict[str, str], metrics: Path, plots: Path) -> str:
    """Return the section, and draw perplexity over size into `plots`; an empty text where there is no such model.

    `folders`: section `models` of params.yaml; `metrics`: the folder that the stages write to.
    """
    names = [*MODELS, *(name for name in folders if name != CONTROL)]
    if len(names) == len(MODELS):
        return ""
    evaluate, profile = (read_by_model(metrics, stage, names) for stage in ("evaluate", "profile"))
    sets, tasks = perplexity_sets(evaluate), task_names(evaluate)
    rows = []
    for name in names:
        row = [name, number(evaluate[name].get(f"{sets[0]}_ppl", math.nan), DECIMALS) if sets else ""]
        row += [number(100 * average_accuracy(evaluate[name], tasks), DECIMALS)]
        row += [number(profile[name].get(key, math.nan), decimals, thousands=True) for key, _, decimals in SHOWN]
        rows.append(row)
    headings = ["model", f"{sets[0]} PPL" if sets else "", "average accuracy (%)", *(title for _, title, _ in SHOWN)]
    text = (
        "## Further models\n\nThe models of section `models`, besides base, pruned and tuned. A GGUF is evaluated with "
        "its weights dequantised; its size is that of its tensors, and its memory and speed are llama.cpp's, the "
        "others' torch's."
        f"\n\n{markdown(headings, rows)}"
    )
    if sets and draw(evaluate, profile, sets[0], plots):
        text += f"\n\n![{PLOT}](plots/{PLOT}.png)"
    return text


def draw(evaluate: dict[str, Metrics], profile: dict[str, Metrics], text: str, folder: Path) -> bool:
    """Draw perplexity on `text` over the weights' size, a point per model that has both; return whether any has."""
    points = {
        name: (profile[name]["weights_mib"], metrics[f"{text}_ppl"])
        for name, metrics in evaluate.items()
        if f"{text}_ppl" in metrics and "weights_mib" in profile[name]
    }
    if not points:
        return False
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(8.5, 5), layout="constrained")
        axes.scatter(*zip(*points.values(), strict=True), color=COLOURS[0])
        for name, point in points.items():
            axes.annotate(name, point, xytext=(6, 4), textcoords="offset points", fontsize=11)
        axes.set(xlabel="weights (MiB)", ylabel=f"perplexity on {text}", xscale="log", yscale="log")
        axes.margins(x=0.2)
        for axis in (axes.xaxis, axes.yaxis):
            plain_log_ticks(axis)
        figures.save({PLOT: figure}, folder)
    return True
