"""Held-out perplexity of every method at equal parameters: python benchmarks/quality.py [--methods obs best]

Each method prunes models/base to the number of parameters that LLM-Pruner's rule leaves at 0.3, 0.5 and 0.7 in layers
[1, last], once per calibration seed. Rows are printed as they are done: the mean perplexity, its standard deviation
over the seeds, and the share of the log-perplexity lost by taylor that the method wins back.
"""

import argparse
import math
import statistics
import sys
from pathlib import Path

import pandas as pd
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from stages.common.checkpoint import load_model, load_tokenizer
from stages.common.params import RunParams
from stages.common.torch_setup import setup_torch
from stages.common.windows import random_windows, token_stream
from stages.evaluate.perplexity import evaluation_windows, read_sets, window_losses
from stages.prune import structures
from stages.prune.methods import METHODS
from stages.prune.params import PruneParams

RATIOS = (0.3, 0.5, 0.7)


def main() -> None:
    """Print one row per method."""
    options = arguments()
    setup_torch(RunParams(device="auto", threads=options.threads))
    layers = load_model(options.base).config.num_hidden_layers
    calibration, windows = texts(options)

    def log_perplexity(model) -> float:
        return window_losses(model, windows, 8192, "held-out text").mean().item()

    def pruned(method: str, ratio: float, ratio_of: str, seed: int):
        params = section(method, ratio, ratio_of, seed, options, layers)
        chosen = random_windows(calibration, options.windows, options.length, seed, "--windows")
        return structures.load(params.chosen.structure).prune(load_model(options.base), chosen, params)

    dense = log_perplexity(load_model(options.base))
    print(f"base: {math.exp(dense):.2f}, {load_model(options.base).num_parameters():,} parameters")
    goals = {ratio: pruned("l2", ratio, "groups", 0)[1] for ratio in RATIOS}
    print(row("method", *(f"{ratio:g} ({goals[ratio]['parameters']:,})" for ratio in RATIOS)))
    print(row("---", *("---:" for _ in RATIOS)))
    lost: dict[float, float] = {}
    for method in ["taylor", *(name for name in options.methods if name != "taylor")]:
        cells = []
        for ratio in RATIOS:
            # A hair more, so that rounding down to whole parameters cannot cost a unit.
            share = goals[ratio]["ratio_actual"] + 1e-9
            found = [log_perplexity(pruned(method, share, "parameters", seed)[0]) for seed in range(options.seeds)]
            mean = statistics.fmean(found)
            lost.setdefault(ratio, mean - dense)
            spread = f" ± {statistics.stdev(map(math.exp, found)):.2f}" if len(found) > 1 else ""
            back = 1 - (mean - dense) / lost[ratio]
            cells.append(f"{math.exp(mean):.2f}{spread} ({back:.0%})")
        print(row(method, *cells), flush=True)


def texts(options) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the tokens that calibration windows are drawn from, and the held-out windows, shape (count, length)."""
    tokenizer = load_tokenizer(options.base)
    calibration = token_stream(pd.read_parquet("data/calibration.parquet")["text"].tolist(), tokenizer)
    sets = read_sets(Path("data/perplexity"))
    held_out = [evaluation_windows(name, documents, tokenizer, options.length) for name, documents in sets.items()]
    return calibration, torch.cat([each[: options.evaluate_windows] for each in held_out])


def arguments() -> argparse.Namespace:
    """Return the command line's options."""
    block = [name for name, method in METHODS.items() if method.structure == "block"]
    channel = [name for name, method in METHODS.items() if method.structure == "channel"]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", default="models/base", help="checkpoint to prune")
    parser.add_argument("--methods", nargs="+", default=block, choices=block + channel, metavar="METHOD")
    parser.add_argument("--seeds", type=int, default=3, help="calibration draws, 0 .. n-1")
    parser.add_argument("--windows", type=int, default=64, help="calibration windows")
    parser.add_argument("--length", type=int, default=128, help="tokens per window")
    parser.add_argument("--evaluate-windows", type=int, default=None, help="held-out windows per set; all if not given")
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
        seed=seed,
        calibration={"windows": options.windows, "length": options.length},
    )


def row(*cells: str) -> str:
    """Return a row of a Markdown table."""
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
