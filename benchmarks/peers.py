"""Beside the peers' own code: python benchmarks/peers.py --base DIR [--wanda CLONE] [--only NAME ...] [--table]

Prunes the checkpoint DIR by our methods, and by those of the peers whose clones are given (--wanda, --svdllm,
--slicegpt), on the same 64 windows of 128 tokens of WikiText2's validation text (or as many as a run's name says);
perplexity on the first 16 windows of 1,024 tokens of WikiText2's test and PTB's validation text, with forward passes in
bfloat16 where that is fast. Our heads and channels are also calibrated so, all else in float32. Each pruning runs in a
process of its own; its CPU seconds are of the pruning alone, its peak of resident memory from the start of the process.
Each result is a line of --results with the loss of every window; a later run measures only what is missing there.
Prints a table, ours minus theirs with 95 % intervals over the windows, and what best loses beside uniform shares.
benchmarks/peers.md says how the other peers were run.
"""

import argparse
import json
import math
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

# No torch here: Linux counts the memory of the process that starts another into the other's peak.
from scipy.stats import t as student  # noqa: E402 - the path has to be there first
from tabulate import tabulate  # noqa: E402

TEXTS = ("wikitext2_tokenised", "ptb")
SEEDS = (42, 43, 44)  # of the draws of windows
SPARSE = (  # our method, theirs, and the pattern beside 2:4
    ("wanda", "wanda", "row"),
    ("sparsegpt", "sparsegpt", "matrix"),
    ("sparsegpt_realign", "sparsegpt", "matrix"),
    ("magnitude", "magnitude", "matrix"),
)
HEAD = [
    "tool",
    "method",
    "size",
    "seed",
    "calibration",
    "parameters kept",
    "WikiText2",
    "PTB",
    "CPU seconds",
    "peak MiB",
]


@dataclass(frozen=True)
class Run:
    """One pruning: whose code, its method, the size it leaves, and what our params say of it."""

    tool: str
    method: str
    size: str
    params: dict[str, Any] = field(default_factory=dict, hash=False)
    seed: int = 42
    calibration: tuple[int, int] = (64, 128)  # windows and tokens of each

    @property
    def name(self) -> str:
        """The name in results and on the command line."""
        windows, length = self.calibration
        more = f" {windows}x{length}" if self.calibration != (64, 128) else ""
        return f"{self.tool} {self.method} {self.size} {self.seed}{more}"


def sparse() -> list[tuple[Run, Run]]:
    """Return half of all single weights at zero: ours and theirs, both patterns and all draws."""
    layers = {"ratio": 0.5, "ratio_of": "groups", "attention_layers": [0, 30], "mlp_layers": [0, 30]}
    pairs = []
    for ours, theirs, pattern in SPARSE:
        seeds = SEEDS if theirs != "magnitude" else SEEDS[:1]  # it looks at no window
        for size in (pattern, "2:4"):
            params = layers | {"pattern": size}
            pairs += [
                (Run("ours", ours, size, params, seed), Run("wanda", theirs, size, params, seed)) for seed in seeds
            ]
    return pairs


def block(method: str, kept: float, seed: int = 42, calibration: tuple[int, int] = (64, 128)) -> Run:
    """Return a pruning of heads and channels that leaves `kept` of the parameters, as benchmarks/real_model.py does."""
    layers = {"ratio": 1 - kept, "ratio_of": "parameters", "attention_layers": [2, 28], "mlp_layers": [2, 28]}
    return Run("ours", method, f"{kept:.4f}", layers | {"precision": "auto"}, seed, calibration)


LLM_PRUNERS = 1 - 30_356_352 / 134_515_008  # what LLM-Pruner leaves of the model at its ratio of 0.3282
DENSE = Run("base", "none", "1.0000")
ALLOCATION = ("best", "obs_realign")  # the same criterion and update, uniform shares
KEPT = (0.8, 0.7, 0.6)
RUNS = [
    DENSE,
    *dict.fromkeys(run for pair in sparse() for run in pair),
    block("best", 0.8, calibration=(128, 1024)),
    *(block(method, LLM_PRUNERS) for method in ("best", "taylor")),
    *(block(method, kept, seed) for kept in KEPT for method in ALLOCATION for seed in SEEDS),
    Run("svdllm", "whitening", "0.8000", {"ratio": 0.747}),  # of the layers' parameters: 0.8 of all
    Run("slicegpt", "rotate_and_slice", "0.8000", {"width": 354}),  # of 576; with its head and rotations 0.8 of all
]
PEERS = {
    "wanda": "locuslab/wanda",
    "svdllm": "AIoT-MLSys-Lab/SVD-LLM",
    "slicegpt": "microsoft/TransformerCompression",
}


def main() -> None:
    """Measure what is missing and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", type=Path, help="checkpoint to prune; needed unless --table")
    for tool, name in PEERS.items():
        parser.add_argument(f"--{tool}", type=Path, metavar="CLONE", help=f"clone of {name}; not measured without")
    parser.add_argument("--only", nargs="+", default=[run.name for run in RUNS], metavar="NAME", help="of the results")
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks/results/peers.jsonl", help="see above")
    parser.add_argument("--table", action="store_true", help="measure nothing")
    options = parser.parse_args()
    if unknown := set(options.only) - {run.name for run in RUNS}:
        parser.error(f"--only {sorted(unknown)}; expected some of: {', '.join(run.name for run in RUNS)}")
    if not options.table:
        measure(options)
    found = read_rows(options.results)
    print(results_table(found), end="\n\n")
    print(pairs_table(found), end="\n\n")
    print(allocation_table(found))


def measure(options: argparse.Namespace) -> None:
    """Append to the results the runs that they lack."""
    options.results.parent.mkdir(parents=True, exist_ok=True)
    clones = {"base": ROOT, "ours": ROOT} | {tool: getattr(options, tool) for tool in PEERS}
    for run in RUNS:
        if run.name in options.only and clones[run.tool] and run.name not in read_rows(options.results):
            job = {"base": str(options.base), "clone": str(clones[run.tool]), **vars(run)}
            command = [sys.executable, str(ROOT / "benchmarks/peers_measure.py"), json.dumps(job)]
            row = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
            with options.results.open("a") as file:
                file.write(json.dumps({"name": run.name} | row) + "\n")


def read_rows(path: Path) -> dict[str, dict[str, Any]]:
    """Return the results by name, none where there is no such file."""
    lines = path.read_text().splitlines() if path.is_file() else []
    return {row["name"]: row for row in map(json.loads, lines)}


def results_table(found: dict[str, dict[str, Any]]) -> str:
    """Return a row for every run that is measured."""
    rows = []
    for run in RUNS:
        if row := found.get(run.name):
            quality = [f"{math.exp(mean(row['losses'][text])):.2f}" for text in TEXTS]
            kept = f"{row['parameters_nonzero'] / row['parameters_before']:.4f}"
            tokens = "x".join(map(str, run.calibration))
            rows.append(
                [run.tool, run.method, run.size, run.seed, tokens, kept, *quality, row["cpu_seconds"], row["peak_mib"]]
            )
    return tabulate(rows, HEAD, "pipe", disable_numparse=True)


def pairs_table(found: dict[str, dict[str, Any]]) -> str:
    """Return ours minus theirs: log-perplexity with its 95 % interval over windows, and CPU seconds over theirs."""
    rows = []
    for ours, theirs in sparse():
        a, b = found.get(ours.name), found.get(theirs.name)
        if a and b:
            quality = [difference(a["losses"][text], b["losses"][text]) for text in TEXTS]
            rows.append([ours.method, ours.size, ours.seed, *quality, f"{a['cpu_seconds'] / b['cpu_seconds']:.2f}"])
    return tabulate(
        rows, ["ours minus theirs", "size", "seed", *TEXTS, "CPU, times theirs"], "pipe", disable_numparse=True
    )


def allocation_table(found: dict[str, dict[str, Any]]) -> str:
    """Return the log-perplexity that best and obs_realign lose, means over the draws that both have, and the ratio."""
    rows = []
    for kept in KEPT if DENSE.name in found else ():
        names = [[block(method, kept, seed).name for method in ALLOCATION] for seed in SEEDS]
        pairs = [[found[name] for name in pair] for pair in names if all(name in found for name in pair)]
        for text in TEXTS if pairs else ():
            dense = mean(found[DENSE.name]["losses"][text])
            best, uniform = (
                mean([mean(row["losses"][text]) - dense for row in each]) for each in zip(*pairs, strict=True)
            )
            rows.append([f"{kept:.1f}", text, len(pairs), f"{best:.3f}", f"{uniform:.3f}", f"{best / uniform:.2f}"])
    return tabulate(rows, ["kept", "text", "draws", *ALLOCATION, "best, times"], "pipe", disable_numparse=True)


def difference(ours: list[float], theirs: list[float]) -> str:
    """Return the mean difference of the windows' losses with its 95 % interval, and whether ours loses no more."""
    pairs = [a - b for a, b in zip(ours, theirs, strict=True)]
    middle, count = mean(pairs), len(pairs)
    error = math.sqrt(sum((each - middle) ** 2 for each in pairs) / (count - 1) / count)
    reach = float(student.ppf(0.975, count - 1)) * error
    return f"{middle:+.4f} ± {reach:.4f}, {'met' if middle <= reach else 'missed'}"


def mean(values: list[float]) -> float:
    """Return the mean."""
    return sum(values) / len(values)


if __name__ == "__main__":
    main()
