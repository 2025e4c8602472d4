"""Held-out perplexity of every method at equal parameters: python benchmarks/quality.py [--methods obs best] [--table]

Each method prunes models/base to the number of parameters that LLM-Pruner's rule leaves at 0.3, 0.5 and 0.7 in layers
[1, last], once per calibration seed; a deterministic method that uses no window, once. Each measurement is a line of
--results, so that a later run resumes; lines of another base, other texts, other options or other code of stages/prune
are ignored. The table has the mean perplexity, its standard deviation over the seeds, and the share of taylor's lost
log-perplexity that the method does not lose; --table prints it from the stored results.
"""

import argparse
import hashlib
import json
import math
import statistics
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from stages.common.params import RunParams  # noqa: E402
from stages.common.torch_setup import setup_torch  # noqa: E402
from stages.common.windows import random_windows, token_stream  # noqa: E402
from stages.evaluate.perplexity import evaluation_windows, read_sets, window_losses  # noqa: E402
from stages.models.checkpoint import load_model, load_tokenizer  # noqa: E402 - the path has to be there first
from stages.prune.methods import METHODS, Method  # noqa: E402
from stages.prune.params import PruneParams  # noqa: E402
from stages.prune.pruning import prune  # noqa: E402

RATIOS = (0.3, 0.5, 0.7)
STRUCTURES = ("block", "channel")
OF_WEIGHTS = ("l1", "l2", "similarity")  # criteria that look at no window


def main() -> None:
    """Measure what is missing and print the table."""
    options = arguments()
    setup_torch(RunParams(device="auto", threads=options.threads, precision="auto", processes=1, sharded=False))
    results = Results(options.results, state(options))
    if not options.table:
        measure(options, results)
    print_table(results.frame())


class Results:
    """The measurements in a file, one JSON object per line, and among them those of one state."""

    def __init__(self, path: Path, key: str):
        """Read `path`, which need not exist; `key` is the state (state)."""
        self.path, self.key = path, key
        lines = path.read_text().splitlines() if path.exists() else []
        here = [row for row in map(json.loads, lines) if row["state"] == key]
        self.rows = {(row["method"], row["ratio"], row["seed"]): row for row in here}

    def add(self, method: str, ratio: float, seed: int, run: Callable[[], dict[str, float]]) -> None:
        """Append what `run` finds, unless there is a line for this method, ratio and seed."""
        place = method, ratio, seed
        if place in self.rows:
            return
        found = {"state": self.key, "method": method, "ratio": ratio, "seed": seed} | run()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a") as file:
            file.write(json.dumps(found) + "\n")
        self.rows[place] = found

    def frame(self) -> pd.DataFrame:
        """Return the measurements of this state."""
        return pd.DataFrame(self.rows.values())


def state(options: argparse.Namespace) -> str:
    """Return a digest of all that the measurements depend on."""
    files = [
        *sorted(Path(options.base).glob("*.safetensors")),
        Path("data/calibration.parquet"),
        *sorted(Path("data/perplexity").glob("*.parquet")),
        *sorted((ROOT / "stages/prune").rglob("*.py")),
    ]
    settings = f"{options.windows} {options.length} {options.evaluate_windows}".encode()
    parts = [settings, *(file.read_bytes() for file in files)]
    return hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()[:16]


def measure(options: argparse.Namespace, results: Results) -> None:
    """Add the methods' measurements, taylor's before all others, to `results`."""
    layers = load_model(options.base).config.num_hidden_layers
    calibration, windows = texts(options)

    def log_perplexity(model) -> float:
        return window_losses(model, windows, 8192, "held-out text").mean().item()

    def pruned(method: str, ratio: float, ratio_of: str, seed: int):
        params = section(method, ratio, ratio_of, seed, options, layers)
        chosen = random_windows(calibration, options.windows, options.length, seed, "--windows")
        return prune(load_model(options.base), chosen, params)

    def measured(method: str, ratio: float, seed: int) -> dict[str, float]:
        goal = goals[ratio]
        # A hair more, so that rounding down to whole parameters cannot cost a unit.
        model, metrics = pruned(method, goal["ratio_actual"] + 1e-9, "parameters", seed)
        sizes = {"goal": goal["parameters"], "parameters": metrics["parameters"]}
        return sizes | {"log_perplexity": log_perplexity(model)}

    def dense() -> dict[str, float]:
        model = load_model(options.base)
        size = model.num_parameters()
        return {"goal": size, "parameters": size, "log_perplexity": log_perplexity(model)}

    goals = {ratio: pruned("l2", ratio, "groups", 0)[1] for ratio in RATIOS}
    results.add("base", 0.0, 0, dense)
    for method in ["taylor", *(name for name in options.methods if name != "taylor")]:
        for seed in range(draws(METHODS[method], options.seeds)):
            for ratio in RATIOS:
                results.add(method, ratio, seed, lambda: measured(method, ratio, seed))  # noqa: B023 - called at once
        print(f"{method} done", file=sys.stderr)


def draws(method: Method, seeds: int) -> int:
    """Return how many of `seeds` calibration draws can differ for `method`."""
    fixed = method.criterion in OF_WEIGHTS and method.allocation == "uniform" and method.update == "none"
    return 1 if fixed else seeds


def print_table(found: pd.DataFrame) -> None:
    """Print one row for every method that is measured at all ratios, and how near the parameters came."""
    if found.empty:
        sys.exit("nothing is measured of this base, these texts and options, and this code yet")
    base = found[found["method"] == "base"].iloc[0]
    dense = base["log_perplexity"]
    print(f"base: {math.exp(dense):.2f}, {base['parameters']:,} parameters")
    found = found[found["method"] != "base"]
    goals = found.groupby("ratio")["goal"].first()
    print(row("method", "draws", *(f"{ratio:g} ({goal:,})" for ratio, goal in goals.items())))
    print(row("---", *("---:" for _ in range(1 + len(goals)))))
    lost = found[found["method"] == "taylor"].groupby("ratio")["log_perplexity"].mean() - dense
    for name in (name for name in METHODS if name in set(found["method"])):
        by_ratio = {ratio: rows["log_perplexity"] for ratio, rows in found[found["method"] == name].groupby("ratio")}
        if len(by_ratio) < len(goals):
            continue
        cells = []
        for ratio, values in by_ratio.items():
            spread = f" ± {statistics.stdev(map(math.exp, values)):.2f}" if len(values) > 1 else ""
            back = 1 - (values.mean() - dense) / lost[ratio]
            cells.append(f"{math.exp(values.mean()):.2f}{spread} ({back:.0%})")
        print(row(name, str(min(map(len, by_ratio.values()))), *cells))
    off = (found["parameters"] - found["goal"]).abs()
    for structure, worst in off.groupby(found["method"].map(lambda name: METHODS[name].structure)).max().items():
        print(f"{structure}: parameters met to within {worst:,}")


def texts(options) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the tokens that calibration windows are drawn from, and the held-out windows, shape (count, length)."""
    tokenizer = load_tokenizer(options.base)
    calibration = token_stream(pd.read_parquet("data/calibration.parquet")["text"].tolist(), tokenizer)
    sets = read_sets(Path("data/perplexity"))
    held_out = [evaluation_windows(name, documents, tokenizer, options.length) for name, documents in sets.items()]
    return calibration, torch.cat([each[: options.evaluate_windows] for each in held_out])


def arguments() -> argparse.Namespace:
    """Return the command line's options."""
    allowed = [name for structure in STRUCTURES for name, each in METHODS.items() if each.structure == structure]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", default="models/base", help="checkpoint to prune")
    parser.add_argument("--methods", nargs="+", default=allowed, choices=allowed, metavar="METHOD")
    parser.add_argument("--seeds", type=int, default=3, help="calibration draws, 0 .. n-1")
    parser.add_argument("--windows", type=int, default=64, help="calibration windows")
    parser.add_argument("--length", type=int, default=128, help="tokens per window")
    parser.add_argument("--evaluate-windows", type=int, default=None, help="held-out windows per set; all if not given")
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks/results/quality.jsonl", help="see above")
    parser.add_argument("--table", action="store_true", help="measure nothing")
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


def section(method: str, ratio: float, ratio_of: str, seed: int, options, layers: int) -> PruneParams:
    """Return section `prune` for one run."""
    return PruneParams(
        method=method,
        structure=None,
        criterion=None,
        allocation=None,
        update=None,
        pattern=None,
        ratio=ratio,
        ratio_of=ratio_of,
        budget=None,
        budget_length=1,
        attention_layers=[1, layers],
        mlp_layers=[1, layers],
        grouping="sum",
        taylor="param_first",
        iterative_steps=1,
        round_to=1,
        layout="free",
        streaming=False,
        seed=seed,
        calibration={"windows": options.windows, "length": options.length},
    )


def row(*cells: str) -> str:
    """Return a row of a Markdown table."""
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
