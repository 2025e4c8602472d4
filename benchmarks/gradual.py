"""Pruning while training against one cut: python benchmarks/gradual.py [--arms ARM ...]

Run it where `dvc repro base` has made data/ and models/base of studies/demo.yaml. Every arm trains all weights on as
many tokens as the others, by distillation from the base. Single weights, all attention and MLP matrices: one cut
before the first step, or zeros that grow by `tune.sparsity`. Units, the same share in all layers: one cut, or units
that become zero by `tune.sparsity`. Units, by taylor: one cut, or --rounds rounds of pruning and training. Each cell
is the mean perplexity on held-out text over the seeds of the order of the data, and its standard deviation. Rows are
printed as soon as they are measured.
"""

import argparse
import math
import statistics
import tempfile
from pathlib import Path

from quality import row, section, texts
from transformers import PreTrainedModel

from stages.common.params import RunParams, load_section
from stages.common.torch_setup import setup_torch
from stages.common.windows import random_windows
from stages.evaluate.perplexity import window_losses
from stages.models.checkpoint import load_model, load_tokenizer
from stages.prune.pruning import prune
from stages.tune import full
from stages.tune.data import training_examples, validation_examples
from stages.tune.distillation import Distillation
from stages.tune.params import TuneParams
from stages.tune.recovery import recover

WEIGHTS = {  # the preset that makes the cut before training, and `begin` and `end` of tune.sparsity
    "magnitude, one cut": ("magnitude", (0.0, 0.0)),
    "sparsegpt, one cut": ("sparsegpt", (0.0, 0.0)),
    "schedule, end 0.25": (None, (0.0, 0.25)),
    "schedule, end 0.5": (None, (0.0, 0.5)),
}
SHARES = {  # the same for units of all layers
    "taylor in all layers, one cut": ("taylor", (0.0, 0.0)),
    "units, end 0.25": (None, (0.0, 0.25)),
    "units, end 0.5": (None, (0.0, 0.5)),
}
UNITS = {"taylor, one cut": 1, "taylor, rounds": 0}  # 0: as many as --rounds
# Of the matrices' weights; of the units, where both rules for whole units give the same widths; of the parameters.
WEIGHT_RATIOS, SHARE_RATIOS, UNIT_RATIOS = (0.5, 0.8), (0.25, 0.5), (0.3,)
BATCH = 8


def main() -> None:
    """Print the tables."""
    options = arguments()
    setup_torch(RunParams(device="auto", threads=options.threads, precision="auto", processes=1, sharded=False))
    base = load_model(options.base)
    calibration, windows = texts(options)

    def perplexity(model: PreTrainedModel) -> float:
        return math.exp(window_losses(model, windows, 8192, "held-out text").mean().item())

    def pruned(model: PreTrainedModel, method: str, ratio: float, of: str, seed: int) -> PreTrainedModel:
        layers = model.config.num_hidden_layers
        ranges = {} if of == "parameters" else {"attention_layers": [0, layers], "mlp_layers": [0, layers]}
        params = section(method, ratio, of, seed, options, layers).model_copy(update=ranges)
        return prune(model, random_windows(calibration, options.windows, options.length, seed, "--windows"), params)[0]

    def gradual(arm: str, ratio: float, seed: int) -> float:
        method, span = (WEIGHTS | SHARES)[arm]
        model = load_model(options.base)
        if method:
            model = pruned(model, method, ratio, "groups", seed)
        structure = "block" if arm in SHARES else "weight"
        goal = None if method else ratio
        return perplexity(trained(base, model, structure, goal, span, options.steps, seed, options))

    def small(arm: str, ratio: float, seed: int) -> float:
        model, rounds = load_model(options.base), UNITS[arm] or options.rounds
        for number in range(rounds):
            left = 1 - ratio * number / rounds
            model = pruned(model, "taylor", ratio / rounds / left, "parameters", seed)
            model = trained(
                base, model, "block", None, (0.0, 0.0), options.steps // rounds, seed + number * 100, options
            )
        return perplexity(model)

    print(f"base: {perplexity(base):.2f}; {options.steps * BATCH * options.length:,} tokens, {len(windows)} windows\n")
    tables = (WEIGHTS, gradual, WEIGHT_RATIOS), (SHARES, gradual, SHARE_RATIOS), (UNITS, small, UNIT_RATIOS)
    for table, measure, ratios in tables:
        chosen = [arm for arm in table if arm in options.arms]
        if chosen:
            print(row("", *map(str, ratios)), row("---", *("---:" for _ in ratios)), sep="\n")
        for arm in chosen:
            found = [[measure(arm, ratio, seed) for seed in range(options.seeds)] for ratio in ratios]
            print(row(arm, *map(spread, found)), flush=True)
        print()


def trained(
    base: PreTrainedModel,
    model: PreTrainedModel,
    structure: str,
    ratio: float | None,
    span: tuple[float, float],
    steps: int,
    seed: int,
    options: argparse.Namespace,
) -> PreTrainedModel:
    """Return `model` trained in full for `steps` steps, with gradual pruning to `ratio`, if one is given."""
    changes = {
        "method": "full", "objective": "distillation", "seed": seed, "window": options.length, "batch_size": BATCH,
        "micro_batch_size": BATCH, "steps": steps, "warmup_steps": steps // 10, "learning_rate": options.rate,
        "validate_every": steps // 5, "validation_sequences": 64,
        "sparsity": {
            "structure": structure, "ratio": ratio, "begin": span[0], "end": span[1], "every": options.every,
        },
    }  # fmt: skip
    params = TuneParams.model_validate(load_section("tune", TuneParams).model_dump() | changes)
    tokenizer = load_tokenizer(options.base)
    examples, held_out = training_examples(params, tokenizer), validation_examples(params, tokenizer)
    tuned = full.prepare(model, params)
    with tempfile.TemporaryDirectory() as state:
        recover(tuned, Distillation(base, 1.0, 0.0), examples, held_out, params, Path(state))
    return full.merge(tuned).eval().requires_grad_(False)


def spread(values: list[float]) -> str:
    """Return the mean, and the deviation where there are several values."""
    deviation = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.2f}{deviation}"


def arguments() -> argparse.Namespace:
    """Return the command line's options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", default="models/base", help="checkpoint to prune")
    arms = [*WEIGHTS, *SHARES, *UNITS]
    parser.add_argument("--arms", nargs="*", default=arms, choices=arms, metavar="ARM", help="; ".join(arms))
    parser.add_argument("--seeds", type=int, default=3, help="of calibration and the order of the data, 0 .. n-1")
    parser.add_argument("--steps", type=int, default=100, help=f"of {BATCH} windows")
    parser.add_argument("--rounds", type=int, default=4, help="of pruning and training units")
    parser.add_argument("--every", type=int, default=5, help="steps between two cuts")
    parser.add_argument("--rate", type=float, default=0.003, help="peak learning rate")
    parser.add_argument("--windows", type=int, default=64, help="calibration windows")
    parser.add_argument("--length", type=int, default=128, help="tokens per window")
    parser.add_argument("--evaluate-windows", type=int, default=250, help="held-out windows per set")
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


if __name__ == "__main__":
    main()
