"""Held-out perplexity of sparse models and of models with fewer layers: python benchmarks/sparse_quality.py

The first table: half of the weights of the matrices in layers [1, last] set to zero, by every method and pattern. The
second: whole layers of the same range removed. Each cell is the mean perplexity over the calibration seeds and its
standard deviation; methods without calibration windows have none. Rows are printed as soon as they are measured.
"""

import argparse
import math
import statistics

from quality import row, section, texts

from stages.common.params import RunParams
from stages.common.torch_setup import setup_torch
from stages.common.windows import random_windows
from stages.evaluate.perplexity import window_losses
from stages.models.checkpoint import load_model
from stages.prune.pruning import prune

SPARSE = {
    "magnitude": {"method": "magnitude"},
    "wanda": {"method": "wanda"},
    "wanda, update obs": {"method": "wanda", "update": "obs"},
    "sparsegpt": {"method": "sparsegpt"},
    "sparsegpt_realign": {"method": "sparsegpt_realign"},
}
PATTERNS = ("row", "matrix", "2:4", "4:8")
UNCALIBRATED = ("magnitude", "first_layers", "last_layers")  # no window is looked at, so one draw is enough
LAYERS = ("shortgpt", "layer_taylor", "first_layers", "last_layers")


def main() -> None:
    """Print both tables."""
    options = arguments()
    setup_torch(RunParams(device="auto", threads=options.threads, precision="auto", processes=1, sharded=False))
    layers = load_model(options.base).config.num_hidden_layers
    calibration, windows = texts(options)

    def perplexity(model) -> float:
        return math.exp(window_losses(model, windows, 8192, "held-out text").mean().item())

    def cell(ratio: float, method: str, **changes: str) -> str:
        found = []
        for seed in range(1 if method in UNCALIBRATED else options.seeds):
            params = section(method, ratio, "groups", seed, options, layers).model_copy(update=changes)
            chosen = random_windows(calibration, options.windows, options.length, seed, "--windows")
            pruned, _ = prune(load_model(options.base), chosen, params)
            found.append(perplexity(pruned))
        spread = f" ± {statistics.stdev(found):.2f}" if len(found) > 1 else ""
        return f"{statistics.fmean(found):.2f}{spread}"

    dense = load_model(options.base)
    print(f"base: {perplexity(dense):.2f}, {dense.num_parameters():,} parameters, {len(windows)} held-out windows\n")
    header(f"zeros: half of the matrices' weights in layers [1, {layers})", *PATTERNS)
    for name, choices in SPARSE.items():
        print(row(name, *(cell(0.5, **choices, pattern=pattern) for pattern in PATTERNS)), flush=True)
    print()
    counts = range(1, layers - 1)
    header(f"layers removed from [1, {layers})", *map(str, counts))
    for method in LAYERS:
        print(row(method, *(cell(count / (layers - 1), method) for count in counts)), flush=True)


def header(*cells: str) -> None:
    """Print the head of a Markdown table."""
    print(row(*cells))
    print(row("---", *("---:" for _ in cells[1:])), flush=True)


def arguments() -> argparse.Namespace:
    """Return the command line's options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", default="models/base", help="checkpoint to prune")
    parser.add_argument("--seeds", type=int, default=3, help="calibration draws, 0 .. n-1")
    parser.add_argument("--windows", type=int, default=64, help="calibration windows")
    parser.add_argument("--length", type=int, default=128, help="tokens per window")
    parser.add_argument("--evaluate-windows", type=int, default=None, help="held-out windows per set; all if not given")
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


if __name__ == "__main__":
    main()
