"""The tables of the study: numbers as DataFrames, rounded as they are printed, and those as Markdown."""

import math

import pandas as pd
from tabulate import tabulate

from analysis.audit import Finding
from analysis.averages import average_accuracy, average_corrected, mean
from analysis.contrasts import Contrast
from analysis.params import Pruning
from analysis.results import CONTROL, Metrics, is_sparse, names_with, perplexity_sets, task_names

MISSING = "-"
MAJORITY = "Majority answer: always the one most often right, where a task's questions all have the same choices.\n"
DECIMALS = 2  # of perplexities, percentages and sizes in MiB
# Of what a model costs: the metric, its heading, the digits it is printed with.
COSTS = (
    ("parameters", "parameters", 0),
    ("parameters_nonzero", "nonzero parameters", 0),
    ("gmacs", "GMac", 4),
    ("weights_mib", "weights (MiB)", 2),
    ("peak_memory_mib", "peak memory (MiB)", 2),
    ("prefill_tokens_per_second", "prefill (tokens/s)", 0),
    ("decode_tokens_per_second", "decode (tokens/s)", 0),
)


def quality_table(evaluate: dict[str, Metrics], chances: Metrics) -> pd.DataFrame:
    """Return perplexities, task accuracies and their averages (percent), one row a model; NaN is not measured."""
    rows, tasks = {}, task_names(evaluate)
    for model, metrics in evaluate.items():
        row = {f"{name}_ppl": metrics.get(f"{name}_ppl", math.nan) for name in perplexity_sets(evaluate)}
        row |= {task: 100 * metrics.get(f"{task}_acc", math.nan) for task in tasks}
        row["average"] = 100 * average_accuracy(metrics, tasks)
        row["chance_corrected"] = 100 * average_corrected(metrics, tasks, chances)
        rows[model] = row
    return pd.DataFrame.from_dict(rows, orient="index").astype(float).round(DECIMALS)


def norm_table(evaluate: dict[str, Metrics]) -> pd.DataFrame:
    """Return the accuracies by log-likelihood per character (percent), of the tasks that define it."""
    tasks = names_with(evaluate, "_acc_norm")
    rows = {
        model: {task: 100 * metrics.get(f"{task}_acc_norm", math.nan) for task in tasks}
        for model, metrics in evaluate.items()
    }
    return pd.DataFrame.from_dict(rows, orient="index").astype(float).round(DECIMALS)


def cost_table(profile: dict[str, Metrics]) -> pd.DataFrame:
    """Return what each model costs as it is printed, and each cost as percent of the base's (`<metric>_percent`)."""
    rows = cost_rows([[metrics] for metrics in profile.values()], any(map(is_sparse, profile.values())))
    table = pd.DataFrame(rows, index=list(profile), dtype=float)
    decimals = {metric: digits for metric, _, digits in COSTS}
    return table.round({column: decimals.get(column, DECIMALS) for column in table})


def cost_rows(profiles: list[list[Metrics]], sparse: bool) -> list[dict[str, float]]:
    """Return the mean cost of each group of models, and that as percent of the base's, the first; NaN is not measured.

    Parameters that are not zero are among the costs where a model is `sparse`.
    """
    rows = []
    for group in profiles:
        row = {}
        for metric, _, _ in COSTS:
            if metric != "parameters_nonzero" or sparse:
                base = profiles[0][0].get(metric, math.nan)
                row[metric] = mean([float(profile[metric]) for profile in group if metric in profile])
                row[f"{metric}_percent"] = 100 * row[metric] / base if base else math.nan
        rows.append(row)
    return rows


def size_table(prune: Metrics) -> pd.DataFrame:
    """Return the parameters before and after pruning and the share kept (percent): one row, or none if missing.

    Those that are not zero are there too where the model is sparse.
    """
    if not {"parameters_before", "parameters"} <= set(prune):
        return pd.DataFrame()
    before, after = prune["parameters_before"], prune["parameters"]
    row = {"before": before, "after": after, "kept_percent": round(100 * after / before, DECIMALS)}
    if is_sparse(prune):
        nonzero = prune["parameters_nonzero"]
        row |= {"nonzero": nonzero, "nonzero_percent": round(100 * nonzero / before, DECIMALS)}
    return pd.DataFrame([row], index=["pruned"], dtype=float)


def number(value: float, decimals: int, thousands: bool = False) -> str:
    """Return a number as it is printed; a missing one as a dash."""
    if math.isnan(value):
        return MISSING
    return f"{value:,.{decimals}f}" if thousands else f"{value:.{decimals}f}"


def span(low: float, high: float, decimals: int) -> str:
    """Return an interval as it is printed; a dash where there is none."""
    return number(math.nan, decimals) if math.isnan(low) else f"{low:.{decimals}f} to {high:.{decimals}f}"


def p_value(value: float) -> str:
    """Return a p-value as it is printed."""
    if math.isnan(value):
        return MISSING
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def markdown(headings: list[str], rows: list[list[str]], left: int = 1) -> str:
    """Return a pipe table whose first `left` columns are text and the others numbers, which line up on the right."""
    align = ["left"] * left + ["right"] * (len(headings) - left)
    return tabulate(rows, headings, tablefmt="pipe", colalign=align, disable_numparse=True)


def variant(model: str, pruning: Pruning) -> tuple[str, str]:
    """Return the thesis's first two columns, pruning ratio and method, for one of our models."""
    if model in ("base", CONTROL):
        return "0 % (tuned)" if model == CONTROL else "0 %", MISSING
    return pruning.goal + (" (tuned)" if model == "tuned" else ""), pruning.method


def quality_markdown(
    table: pd.DataFrame,
    evaluate: dict[str, Metrics],
    accuracies: list[Contrast],
    baselines: pd.DataFrame,
    pruning: Pruning,
) -> str:
    """Return the quality table in the thesis's shape, with standard errors, marks of significance and `baselines`."""
    sets, tasks = perplexity_sets(evaluate), task_names(evaluate)
    rows = []
    for model, values in table.iterrows():
        row = [str(model), *variant(str(model), pruning)]
        row += [number(values[f"{name}_ppl"], DECIMALS, thousands=True) for name in sets]
        for task in tasks:
            error = evaluate[str(model)].get(f"{task}_acc_stderr")
            spread = "" if error is None or math.isnan(values[task]) else f" ± {100 * error:.2f}"
            row.append(number(values[task], DECIMALS) + spread + marks(str(model), task, accuracies))
        rows.append([*row, number(values["average"], DECIMALS), number(values["chance_corrected"], DECIMALS)])
    for name, values in baselines.iterrows():
        cells = [number(score, DECIMALS) for score in values]
        rows.append([str(name), MISSING, MISSING, *[MISSING] * len(sets), *cells])
    headings = ["model", "ratio", "method", *[f"{name} PPL" for name in sets], *tasks, "average", "chance-corrected"]
    return markdown(headings, rows, left=3)


def norms_markdown(table: pd.DataFrame) -> str:
    """Return the table of acc_norm."""
    rows = [[str(model), *(number(score, DECIMALS) for score in scores)] for model, scores in table.iterrows()]
    return markdown(["model", *table], rows)


def marks(model: str, task: str, accuracies: list[Contrast]) -> str:
    """Return * where the model's accuracy differs from the base's, † where the tuned differs from the pruned."""
    found = "".join(
        "*" if each.reference == "base" else "†"
        for each in accuracies
        if each.significant and (each.model, each.name) == (model, task)
    )
    return f" {found}" if found else ""


def cost_markdown(table: pd.DataFrame) -> str:
    """Return the cost table in the thesis's shape: every quantity with its ratio to the base's."""
    headings, rows = ["model"], [[str(model)] for model in table.index]
    for metric, heading, decimals in COSTS:
        if metric not in table or table[metric].isna().all():
            continue
        headings += [heading, "ratio"]
        for row, (_, values) in zip(rows, table.iterrows(), strict=True):
            percent = number(values[f"{metric}_percent"], DECIMALS)
            row += [number(values[metric], decimals, thousands=True), percent + ("" if percent == MISSING else " %")]
    return markdown(headings, rows)


def memory_origin(profiles: dict[str, Metrics]) -> str:
    """Return how memory was measured in torch for each model."""
    ways = (
        (0, "by arithmetic, the bytes of all parameters and buffers; the peak adds what the process grew by"),
        (1, "measured on CUDA by torch's allocator, as is the peak"),
    )
    sentences = []
    for flag, way in ways:
        models = [model for model, profile in profiles.items() if profile.get("memory_on_cuda") == flag]
        others = [model for model, profile in profiles.items() if profile.get("memory_on_cuda") == 1 - flag]
        if models:
            sentences.append(f"Weights{' of ' + ', '.join(models) if others else ''}: {way}.")
    return " ".join(sentences)


def sizes_markdown(table: pd.DataFrame, goal: str) -> str:
    """Return parameters before and after in the shape of the thesis's table 3, whose actual ratio is the share kept."""
    before, after, kept = table.loc["pruned", ["before", "after", "kept_percent"]]
    headings = ["specified ratio", "parameters before", "parameters after", "actually kept"]
    row = [goal, f"{before:,.0f}", f"{after:,.0f}", f"{kept:.{DECIMALS}f} %"]
    if "nonzero" in table:
        nonzero, share = table.loc["pruned", ["nonzero", "nonzero_percent"]]
        headings += ["of those nonzero", "of those before"]
        row += [f"{nonzero:,.0f}", f"{share:.{DECIMALS}f} %"]
    return markdown(headings, [row], left=0)


def layers_markdown(layers: pd.DataFrame) -> str:
    """Return what pruning left of each layer, before -> after."""
    rows = []
    for _, layer in layers.iterrows():
        widths = [f"{layer[f'{name}_before']} → {layer[name]}" for name in ("query_heads", "kv_heads", "mlp_width")]
        kept = [100 * layer[name] / layer[f"{name}_before"] for name in ("mlp_width", "parameters_nonzero")]
        rows.append([str(layer["layer"]), *widths, *(number(share, 1) for share in kept)])
    return markdown(["layer", "query heads", "KV heads", "MLP width", "MLP kept (%)", "nonzero parameters (%)"], rows)


def findings_markdown(findings: list[Finding]) -> str:
    """Return the findings of the audit as a table."""

    def text(value: float | str) -> str:
        return value if isinstance(value, str) else f"{value:,.2f}"

    rows = [
        [finding.row, finding.column, text(finding.printed), text(finding.expected), finding.kind, finding.reason]
        for finding in findings
    ]
    return markdown(["row", "value", "printed", "recomputed", "kind", "from"], rows, left=6)


def checked(tables: str, findings: list[Finding]) -> str:
    """Return what the audit of our `tables` found."""
    text = f"""Every average, ratio, accuracy, perplexity, parameter count, GMac and size of weights in the tables of
{tables} was computed again: from its row, from the models' answers and losses,
or from shape and dtype in config.json. Nonzero parameters, peak memory and speeds can only be
measured, so only their ratios were checked."""
    if not findings:
        return f"{text} None contradicts its source by more than rounding explains."
    return f"{text} These do not agree:\n\n{findings_markdown(findings)}"
