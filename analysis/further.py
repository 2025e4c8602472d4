"""The models of section `models` beside base, pruned and tuned: what each costs and how good it is."""

import math
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt

from analysis.averages import average_accuracy
from analysis.results import CONTROL, MODELS, Metrics, perplexity_sets, read_measured, task_names
from analysis.run_plots import STYLE
from analysis.tables import DECIMALS, markdown, number

COLUMNS = (
    ("weights_mib", "weights (MiB)", 2),
    ("peak_memory_mib", "peak memory (MiB)", 2),
    ("prefill_tokens_per_second", "prefill (tokens/s)", 0),
    ("decode_tokens_per_second", "decode (tokens/s)", 0),
)
PLOT = "size"


def further_section(folders: dict[str, str], metrics: Path, plots: Path) -> str:
    """Return the section, and draw perplexity over size into `plots`; an empty text where there is no such model.

    `folders`: section `models` of params.yaml; `metrics`: the folder that the stages write to.
    """
    names = [*MODELS, *(name for name in folders if name != CONTROL)]
    if len(names) == len(MODELS):
        return ""
    evaluate = {name: read_measured(metrics, "evaluate", name) for name in names}
    profile = {name: read_measured(metrics, "profile", name) for name in names}
    sets, tasks = perplexity_sets(evaluate), task_names(evaluate)
    rows = []
    for name in names:
        row = [name, number(evaluate[name].get(f"{sets[0]}_ppl", math.nan), DECIMALS) if sets else ""]
        row += [number(100 * average_accuracy(evaluate[name], tasks), DECIMALS)]
        row += [number(profile[name].get(key, math.nan), decimals, thousands=True) for key, _, decimals in COLUMNS]
        rows.append(row)
    headings = ["model", f"{sets[0]} PPL" if sets else "", "average accuracy (%)", *(title for _, title, _ in COLUMNS)]
    text = (
        "## Further models\n\nThose of section `models` beside the three. A GGUF is evaluated with its weights "
        "dequantised; its size is that of its tensors, and its memory and speed are llama.cpp's, the others' torch's."
        f"\n\n{markdown(headings, rows)}"
    )
    if sets and draw(evaluate, profile, f"{sets[0]}_ppl", plots / f"{PLOT}.png"):
        text += f"\n\n![{PLOT}](plots/{PLOT}.png)"
    return text


def draw(evaluate: dict[str, Metrics], profile: dict[str, Metrics], key: str, file: Path) -> bool:
    """Draw perplexity over the weights' size, a point per model that has both; return whether any has."""
    points = {
        name: (profile[name]["weights_mib"], evaluate[name][key])
        for name in evaluate
        if key in evaluate[name] and "weights_mib" in profile[name]
    }
    if not points:
        return False
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(8.5, 5), layout="constrained")
        axes.scatter(*zip(*points.values(), strict=True), color="#0072B2")
        for name, point in points.items():
            axes.annotate(name, point, xytext=(6, 4), textcoords="offset points", fontsize=11)
        axes.set(xlabel="weights (MiB)", ylabel=f"perplexity on {key.removesuffix('_ppl')}", xscale="log", yscale="log")
        for axis in (axes.xaxis, axes.yaxis):
            for set_formatter in (axis.set_major_formatter, axis.set_minor_formatter):
                set_formatter(plt.FuncFormatter(lambda value, _: f"{value:g}"))
        axes.margins(x=0.2)
        figure.savefig(file, metadata={"Software": None})
        plt.close(figure)
    return True
