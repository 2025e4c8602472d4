"""Tables of costs, sizes, layers and findings: numbers as DataFrames, those as text, and text as Markdown."""

import math

import pandas as pd
from tabulate import tabulate

from analysis.audit import Finding
from analysis.averages import mean
from analysis.results import Metrics, is_sparse
from analysis.rows import Runs

MISSING = "-"
MAJORITY = "Majority answer: always the most frequent right answer, for tasks whose questions share the same choices.\n"
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


def cost_numbers(runs: Runs) -> pd.DataFrame:
    """Return what each row costs, the mean over its runs, and that as percent of the base's (`<metric>_percent`).

    The base is the first row; NaN is not measured. Parameters that are not zero are among the costs where a model is
    sparse; what a format rounds to zero makes none so.
    """
    sparse = any(is_sparse(run.profile) for group in runs.values() for run in group if not run.format)
    (base,), *_ = runs.values()
    rows: dict[str, dict[str, float]] = {label: {} for label in runs}
    for metric, _, _ in COSTS:
        if metric != "parameters_nonzero" or sparse:
            whole = base.profile.get(metric, math.nan)
            for label, row in rows.items():
                row[metric] = mean([float(run.profile[metric]) for run in runs[label] if metric in run.profile])
                row[f"{metric}_percent"] = 100 * row[metric] / whole if whole else math.nan
    return pd.DataFrame.from_dict(rows, orient="index", dtype=float)


def cost_text(numbers: pd.DataFrame, identity: pd.DataFrame) -> pd.DataFrame:
    """Return the cost table as it is printed: the columns of `identity`, then every cost and its percentage."""
    text = identity.copy()
    for metric, heading, decimals in COSTS:
        if metric in numbers and numbers[metric].notna().any():
            text[heading] = [number(value, decimals, thousands=True) for value in numbers[metric]]
            text[f"{heading.split(' (')[0]} (%)"] = [number(value, DECIMALS) for value in numbers[f"{metric}_percent"]]
    return text


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


def text_markdown(text: pd.DataFrame, left: int = 1) -> str:
    """Return a table of text as Markdown, whose first `left` columns are words."""
    return markdown(list(text), text.to_numpy().tolist(), left)


def memory_origin(runs: Runs) -> str:
    """Return how memory was measured in torch for each row."""
    ways = (
        (
            0,
            "by arithmetic, the bytes of all parameters and buffers; the peak is that plus the growth of the process",
        ),
        (1, "measured on CUDA by torch's allocator, as is the peak"),
    )
    # A row's runs were measured alike, so its last says it.
    flags = {label: group[-1].profile.get("memory_on_cuda") for label, group in runs.items()}
    sentences = []
    for flag, way in ways:
        rows = [label for label, each in flags.items() if each == flag]
        if rows:
            others = any(each == 1 - flag for each in flags.values())
            sentences.append(f"Weights{' of ' + ', '.join(rows) if others else ''}: {way}.")
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
    headings = {"query_heads": "query heads", "kv_heads": "KV heads", "experts": "experts", "mlp_width": "MLP width"}
    shown = [name for name in headings if name in layers]  # experts in mixtures alone
    for _, layer in layers.iterrows():
        widths = [f"{layer[f'{name}_before']} → {layer[name]}" for name in shown]
        kept = [100 * layer[name] / layer[f"{name}_before"] for name in ("mlp_width", "parameters_nonzero")]
        rows.append([str(layer["layer"]), *widths, *(number(share, 1) for share in kept)])
    columns = ["layer", *(headings[name] for name in shown), "MLP kept (%)", "nonzero parameters (%)"]
    return markdown(columns, rows)


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
measured, so only their percentages were checked."""
    if not findings:
        return f"{text} None differs from its source by more than rounding or its check's tolerance."
    return f"{text} These do not agree:\n\n{findings_markdown(findings)}"
