"""Methods on the base of the project in the working directory: python benchmarks/real_methods.py [--methods l2 ...]

Run it where `dvc repro base` has made models/base and data/tasks. Every method at every ratio of --ratios, calibrated
on 64 windows of 128 tokens of WikiText2's validation text with seed --seed; single weights at a half, unstructured and
2:4. Prints a line of JSON for each model: perplexity on 16 windows of 1,024 tokens of WikiText2 and PTB, and the
accuracy on the first 500 questions of every task.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

from in_memory import MIRROR, Base

from stages.prune.methods import METHODS

DEFAULT = ["l2", "taylor", "wanda_sp", "flap", "shortgpt", "channel_taylor", "best", "wanda", "sparsegpt", "magnitude"]


def main() -> None:
    """Measure and print a line for each model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--mirror", type=Path, default=MIRROR, help="folder of the texts; default: %(default)s")
    parser.add_argument("--methods", nargs="+", default=DEFAULT, choices=list(METHODS), metavar="METHOD")
    parser.add_argument("--ratios", nargs="+", type=float, default=[0.1, 0.2, 0.3, 0.4])
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--perplexity-only", action="store_true", help="without the tasks, the longest part on a CPU")
    options = parser.parse_args()
    base = Base(options.device, options.mirror)
    measured = base.perplexities if options.perplexity_only else base.measured
    print(json.dumps({"method": "base"} | measured(base.model)), flush=True)
    for method in options.methods:
        for changes in choices(method, options.ratios):
            start = time.perf_counter()
            model = base.pruned(options.seed, method=method, **changes)
            row = {"method": method, **changes, "seed": options.seed, "seconds": time.perf_counter() - start}
            print(json.dumps(row | measured(model)), flush=True)


def choices(method: str, ratios: list[float]) -> list[dict[str, Any]]:
    """Return the params of a method's models."""
    if METHODS[method].structure == "weight":
        half = {"ratio": 0.5, "ratio_of": "groups"}
        return [half, half | {"pattern": "2:4"}]
    return [{"ratio": ratio} for ratio in ratios]


if __name__ == "__main__":
    main()
