"""The thesis's printed tables, the values recomputed by arithmetic, and the contradictions in them."""

import math
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from analysis.arithmetic import Shape, exact_macs, parameters
from analysis.audit import CONTRADICTION, Finding, check_average, check_known, check_share
from thesis.arithmetic import THESIS_LAYERS, THESIS_TOKENS, TINYLLAMA, prune_like_llm_pruner, thesis_macs

REFERENCE = Path(__file__).parent / "reference"
TASKS = ["boolq", "hellaswag", "winogrande", "arc_challenge", "openbookqa"]
BYTES_PER_WEIGHT = 2  # the thesis measured in float16; our study of it takes bfloat16
MEMORY_TOLERANCE = 0.05  # of the weights: what else a forward pass of 64 tokens holds


def read_quality(folder: Path = REFERENCE) -> pd.DataFrame:
    """Return tables 2, 4, 5 and 6 (percent), indexed by method, ratio and `tuned`."""
    table = pd.read_csv(folder / "thesis_quality.csv").rename(columns={"average_printed": "average"})
    names = table["method"] + " " + table["ratio"].astype(str) + table["tuned"].map({True: " tuned", False: ""})
    return table.set_index(names.where(table["ratio"] > 0, "base"))


def read_cost(folder: Path = REFERENCE) -> pd.DataFrame:
    """Return tables 3 and 7, indexed by the specified ratio."""
    table = pd.read_csv(folder / "thesis_cost.csv").rename(columns=lambda name: name.removesuffix("_printed"))
    return table.set_index(table["ratio"].map(lambda ratio: f"ratio {ratio}"))


def read_tasks(folder: Path = REFERENCE) -> pd.DataFrame:
    """Return the tasks' accuracy by guessing and by the majority answer (percent), indexed by task."""
    return pd.read_csv(folder / "thesis_tasks.csv").set_index("task")


def read_claims(folder: Path = REFERENCE) -> pd.DataFrame:
    """Return what the thesis says about pairs of rows, indexed by section."""
    return pd.read_csv(folder / "thesis_claims.csv").set_index("section")


def read_ratios(folder: Path = REFERENCE) -> pd.DataFrame:
    """Return the ratios that the thesis says it pruned at, indexed by section."""
    return pd.read_csv(folder / "thesis_ratios.csv").set_index("section")


def thesis_shapes(ratios: Iterable[float]) -> list[Shape]:
    """Return the models of the thesis: TinyLlama, pruned as LLM-Pruner does at each ratio; 0 is the base."""
    return [prune_like_llm_pruner(TINYLLAMA, ratio, THESIS_LAYERS) if ratio else TINYLLAMA for ratio in ratios]


def counted_costs(ratios: pd.Series) -> pd.DataFrame:
    """Return what the thesis's models cost by arithmetic, at each of `ratios`; memory is that of the weights alone."""
    shapes = thesis_shapes(ratios)
    counts = pd.Series([parameters(shape) for shape in shapes], index=ratios.index)
    return pd.DataFrame(
        {
            "ratio": ratios,
            "parameters": counts,
            "thesis_macs": [thesis_macs(shape) for shape in shapes],
            "exact_macs": [exact_macs(shape, THESIS_TOKENS) for shape in shapes],
            "weights_mib": counts * BYTES_PER_WEIGHT / 2**20,
        }
    )


def true_costs(table: pd.DataFrame) -> pd.DataFrame:
    """Return what tables 3 and 7 should hold, in their columns."""
    counted = counted_costs(table["ratio"])
    kept = 100 * counted["parameters"] / parameters(TINYLLAMA)
    return pd.DataFrame(
        {
            "params_before_millions": parameters(TINYLLAMA) / 1e6,
            "params_after_millions": counted["parameters"] / 1e6,
            "params_kept_percent": kept,
            "gmacs": counted["thesis_macs"] / 1e9,
            "gmacs_percent": 100 * counted["thesis_macs"] / thesis_macs(TINYLLAMA),
            "gpu_memory_mib": counted["weights_mib"],
            "gpu_memory_percent": kept,
        }
    )


def audit_cost(table: pd.DataFrame) -> list[Finding]:
    """Return what in tables 3 and 7 contradicts its own row or TinyLlama's arithmetic."""
    base = table.iloc[0]
    findings = check_share(table, "params_kept_percent", "params_after_millions", "params_before_millions")
    for column in ("gmacs", "gpu_memory_mib"):
        whole = f"the base's {column}"
        percent = column.replace("_mib", "") + "_percent"
        findings += check_share(table.assign(**{whole: base[column]}), percent, column, whole)
    true = true_costs(table)
    for column, reason in (
        ("params_before_millions", "TinyLlama's shape"),
        ("params_after_millions", "TinyLlama's shape, LLM-Pruner's rule"),
        ("params_kept_percent", "parameters by TinyLlama's shape"),
        ("gmacs", f"the convention that the pruned rows were counted by, {THESIS_TOKENS} tokens"),
        ("gmacs_percent", "one convention for base and pruned"),
    ):
        findings += check_known(table, column, true[column], reason)
    for column in ("gpu_memory_mib", "gpu_memory_percent"):
        reason = f"float16 weights of the true shape, {MEMORY_TOLERANCE:.0%} tolerance"
        findings += check_known(table, column, true[column], reason, tolerance=MEMORY_TOLERANCE)
    return findings


def audit_quality(table: pd.DataFrame, claims: pd.DataFrame, ratios: pd.DataFrame) -> list[Finding]:
    """Return the averages that are not their row's mean, and the statements that the rows contradict."""
    findings = check_average(table, "average", TASKS) + check_claims(table, claims, TASKS)
    return findings + check_ratios(table, ratios)


def check_claims(table: pd.DataFrame, claims: pd.DataFrame, tasks: list[str]) -> list[Finding]:
    """Return the claims about a pair of rows that the rows contradict.

    A claim (a row of `claims`, indexed by where it is made) says of two rows of `table`, `better` and `worse`, on which
    `tasks` (names joined by a space) the first scores higher, and, where it names them, both rows' averages.
    """
    findings = []
    for place, claim in claims.iterrows():
        better, worse = table.loc[claim["better"]], table.loc[claim["worse"]]
        row = f"{place}: {claim['better']} against {claim['worse']}"
        higher = [task for task in tasks if better[task] > worse[task]]
        if set(higher) != set(claim["tasks"].split()):
            printed, expected = ", ".join(claim["tasks"].split()), ", ".join(higher)
            findings.append(
                Finding(row, "tasks on which it scores higher", printed, expected, CONTRADICTION, "the rows' scores")
            )
        for name, values in (("better", better), ("worse", worse)):
            stated, printed = claim[f"{name}_average"], values["average"]
            if not math.isnan(stated) and stated != printed:
                reason = f"the average that the table prints for {claim[name]}"
                findings.append(Finding(row, f"average of {claim[name]}", stated, printed, CONTRADICTION, reason))
    return findings


def check_ratios(table: pd.DataFrame, claims: pd.DataFrame) -> list[Finding]:
    """Return the claims about the ratios pruned at (joined by a space, indexed by place) that are not the table's."""
    pruned_at = sorted({ratio for ratio in table["ratio"] if ratio > 0})
    return [
        Finding(
            str(place),
            "ratios",
            ", ".join(claimed.split()),
            ", ".join(map(str, pruned_at)),
            CONTRADICTION,
            "the ratios in the table",
        )
        for place, claimed in claims["ratios"].items()
        if sorted(map(float, claimed.split())) != pruned_at
    ]
