"""The goals for real_model.py and for the last run of the pipeline: each row says met or missed."""

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

# No torch here: Linux counts the memory of the process that starts a stage into the stage's peak.
from tabulate import tabulate

from analysis.recovery import other_domains_first, read_recovery, share_text
from analysis.results import perplexity_sets, read_by_model, read_json
from stages.common.errors import UserError

Row = list[str]  # what, measured, bar, met or missed

MOST_PPL = {"wikitext2_tokenised": 30.7, "ptb": 68.9}  # of best
MOST_CPU = 3.0  # times taylor's, of best
PEAK_GIB = {"taylor": 1.8}
OTHERS_PEAK_GIB = 1.5
MOST_OF_TAYLORS = 0.5  # of the log-perplexity that channel_taylor loses, of channel_realign
MOST_RATIO, LEAST_RECOVERED, RUN_PEAK_GIB, MOST_COLUMNS = 1.6, 0.25, 3.0, 30  # of the default run
MINUTES = {True: 9, False: 14}  # by whether the processor multiplies bfloat16 natively


def pruning_bars(found: dict[str, dict[str, Any]]) -> list[Row]:
    """Return the bars of pruning; `found` has what was measured of every method."""
    rows = []
    best, taylor = found.get("best"), found.get("taylor")
    if best:
        rows += [at_most(f"best: perplexity, {name}", best[name], most) for name, most in MOST_PPL.items()]
    if best and taylor:
        rows.append(at_most("best: CPU seconds over taylor's", best["cpu_seconds"] / taylor["cpu_seconds"], MOST_CPU))
    base, channels = found.get("base"), [found.get(name) for name in ("channel_realign", "channel_taylor")]
    if base and all(channels):
        for name in MOST_PPL:
            ours, taylors = (math.log(row[name] / base[name]) for row in channels if row)
            rows.append(at_most(f"channel_realign: loss to channel_taylor's, {name}", ours / taylors, MOST_OF_TAYLORS))
    for name, row in found.items():
        if "peak_mib" in row:
            most = PEAK_GIB.get(name, OTHERS_PEAK_GIB)
            rows.append(at_most(f"{name}: peak memory, GiB", row["peak_mib"] / 1024, most))
    return rows


def run_bars(metrics: Path) -> list[Row]:
    """Return the bars of the run that `metrics` belongs to, none where it has not come to its report."""
    report = read_json(metrics / "details/report.json")
    if not report:
        return []
    sets = other_domains_first(perplexity_sets(read_by_model(metrics, "evaluate")), report["own_domain"])
    ratios = {name: report[key] for name in sets if (key := f"pruned_{name}_ppl_ratio") in report}
    return [
        *(at_most(f"run: pruned over base perplexity, {name}", ratio, MOST_RATIO) for name, ratio in ratios.items()),
        recovered_bar(report, [name for name in sets if name != report["own_domain"]]),
        *cost_bars({file.stem: read_json(file) for file in sorted((metrics / "runtime").glob("*.json"))}),
        at_most("run: metric columns of `dvc exp show`", metric_columns(), MOST_COLUMNS),
    ]


def recovered_bar(report: dict[str, Any], others: list[str]) -> Row:
    """Return the bar of the share won back on the first of `others`, the sets of another domain than the tuning's."""
    recovery = read_recovery(report, others[0]) if others else None
    if not recovery:
        return ["run: recovered on another domain", "not measured", f"at least {LEAST_RECOVERED:.0%}", "missed"]
    text, met = share_text(recovery.share, report["confidence"]), recovery.share.value >= LEAST_RECOVERED
    return bar(f"run: recovered on {recovery.text}", text, f"at least {LEAST_RECOVERED:.0%}", met)


def cost_bars(costs: dict[str, dict[str, float]]) -> list[Row]:
    """Return the seconds of every stage, then the bars of their sum and of the largest peak; `costs` are by stage."""
    if not costs:
        return []
    seconds = {stage: cost["wall_seconds"] for stage, cost in costs.items()}
    peaks = {stage: cost["peak_resident_mib"] / 1024 for stage, cost in costs.items()}
    largest = max(peaks, key=lambda stage: peaks[stage])
    return [
        *([f"run: seconds of {stage}", f"{taken:.1f}", "", ""] for stage, taken in seconds.items()),
        at_most("run: seconds of all stages", sum(seconds.values()), 60 * MINUTES[native_bfloat16()]),
        at_most(f"run: largest peak memory, GiB ({largest})", peaks[largest], RUN_PEAK_GIB),
    ]


def native_bfloat16() -> bool:
    """Return whether the processor multiplies bfloat16 natively."""
    import torch  # not before every stage has been measured

    from stages.common.torch_setup import multiplies_bfloat16

    return multiplies_bfloat16(torch.device("cpu"))


def metric_columns() -> int:
    """Return how many metrics `dvc exp show` has of the project in the working directory.

    Raises UserError where a metrics file is missing.
    """
    command = [sys.executable, "-m", "dvc", "exp", "show", "--json"]
    shown = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    files = shown[0]["data"]["metrics"]
    if missing := [name for name, file in files.items() if "data" not in file]:
        raise UserError(f"{', '.join(missing)} cannot be read; run `dvc repro` before the run is judged")
    return sum(len(file["data"]) for file in files.values())


def at_most(name: str, value: float, most: float) -> Row:
    """Return the row of a bar from above."""
    return bar(name, f"{value:,.4g}", f"at most {most:g}", value <= most)


def bar(name: str, value: str, wanted: str, met: bool) -> Row:
    """Return the row of a bar."""
    return [name, value, wanted, "met" if met else "missed"]


def bars_table(rows: list[Row]) -> str:
    """Return the second table."""
    return tabulate(rows, ["", "measured", "bar", ""], "pipe", disable_numparse=True)
