"""What a large model and a large study take, by arithmetic: python benchmarks/scale.py

Prints two tables: memory of one GPU and hours by stage, for 7B, 70B and 405B; and the hours of a study by the number of
workers, from the seconds of its parts, beside what sweeps took on the cluster of docs/benchmarks.md. Nothing is
measured here; the options say what was.
"""

import argparse
from dataclasses import dataclass

from tabulate import tabulate

GIB = 2**30
HALF, SINGLE, DOUBLE = 2, 4, 8  # bytes of a number
ADAPTER_COPIES = 5  # weight, gradient, Adam's two moments, the best so far: float32
LOGIT_TOKENS, LOGIT_COPIES = 128, 3  # of a slice of the loss
RANK = 16  # of the adapter
SLOWER = 14.8  # a product in float32 than one in bfloat16, on an H100 without TF32


@dataclass(frozen=True)
class Shape:
    """A decoder: layers, hidden size, MLP channels, size of keys and of values, vocabulary."""

    layers: int
    hidden: int
    mlp: int
    keys: int
    vocabulary: int

    @property
    def layer(self) -> int:
        """Return the parameters of a layer."""
        return 2 * self.hidden * (self.hidden + self.keys) + 3 * self.hidden * self.mlp

    @property
    def parameters(self) -> int:
        """Return those of the whole model."""
        return self.layers * self.layer + 2 * self.vocabulary * self.hidden

    def adapter(self, rank: int) -> int:
        """Return the parameters of a LoRA adapter on all linear layers."""
        sizes = 2 * self.hidden + 2 * (self.hidden + self.keys) + 3 * (self.hidden + self.mlp)
        return self.layers * rank * sizes


SHAPES = {
    "7B": Shape(32, 4096, 11008, 4096, 32000),  # Llama 2
    "70B": Shape(80, 8192, 28672, 1024, 32000),  # Llama 2
    "405B": Shape(126, 16384, 53248, 1024, 128256),  # Llama 3.1
}


@dataclass(frozen=True)
class Cost:
    """What a stage takes of each of its GPUs."""

    setting: str
    gpus: int
    memory: float  # bytes
    flop: float  # in bfloat16
    double: float = 0.0  # FLOP in float64
    files: float = 0.0  # bytes read and written
    gathered: float = 0.0  # bytes of weights that come from the other GPUs

    def hours(self, options: argparse.Namespace) -> float:
        """Return the hours."""
        seconds = self.flop / options.flops + self.double / options.double
        return (seconds + self.files / options.disk + self.gathered / options.link) / 3600


def prune(shape: Shape, options: argparse.Namespace, streaming: bool, gpus: int) -> Cost:
    """Return the cost of method `best`: the tokens are shared; every process solves with the Hessians of all."""
    tokens = options.calibration_tokens / gpus
    solved = 4 * shape.mlp**2 + 5 * shape.hidden * shape.mlp
    streams = 3 * shape.hidden * HALF + shape.mlp * (HALF + SINGLE)  # of a token: three streams, and the MLP's inputs
    products = 2 * tokens * (shape.mlp**2 + 3 * shape.hidden**2) * shape.layers  # in float32
    cubes = shape.layers * (1.8 * (shape.mlp**3 + shape.hidden**3) + 2.4 * shape.hidden * shape.mlp**2)
    return Cost(
        f"streaming: {str(streaming).lower()}",
        gpus,
        (shape.layer if streaming else shape.parameters) * HALF + solved * DOUBLE + streams * tokens,
        3 * 2 * shape.layers * shape.layer * tokens + products * SLOWER,
        2 * cubes,  # each output matrix is solved twice
        (5 if streaming else 2) * shape.parameters * HALF,
    )


def tune(shape: Shape, options: argparse.Namespace, teacher: bool, gpus: int, sharded: bool) -> Cost:
    """Return the cost of LoRA with gradient checkpointing: two forward passes and a backward one, and the teacher's."""
    models, micro, shares = 1 + teacher, options.micro_tokens, gpus if sharded else 1
    kept = micro * (shape.layers * shape.hidden + 3 * shape.mlp + 4 * shape.hidden) * HALF
    logits = LOGIT_TOKENS * LOGIT_COPIES * shape.vocabulary * SINGLE
    adapter = ADAPTER_COPIES * shape.adapter(RANK) * SINGLE
    passes = options.tune_tokens / micro / gpus
    return Cost(
        f"sharded: {str(sharded).lower()}",
        gpus,
        models * held(shape, shares) + gathered(shape, shares) + adapter + kept + logits,
        (6 + 2 * teacher) * shape.parameters * options.tune_tokens / gpus,
        0.0,
        (models + 1) * shape.parameters * HALF,
        passes * (2 + teacher) * shape.layers * shape.layer * HALF if sharded else 0.0,
    )


def evaluate(shape: Shape, options: argparse.Namespace, gpus: int, sharded: bool) -> Cost:
    """Return the cost of scoring the tokens of one model; with sharded weights every process scores them all."""
    activations = options.batch_tokens * (4 * shape.hidden + 3 * shape.mlp) * HALF + 2 * 2**24 * SINGLE
    tokens, shares = options.evaluate_tokens / (1 if sharded else gpus), gpus if sharded else 1
    return Cost(
        f"sharded: {str(sharded).lower()}",
        gpus,
        held(shape, shares) + gathered(shape, shares) + activations,
        2 * shape.parameters * tokens,
        0.0,
        shape.parameters * HALF,
        tokens / options.batch_tokens * shape.layers * shape.layer * HALF if sharded else 0.0,
    )


def held(shape: Shape, shares: int) -> float:
    """Return the bytes of a model whose layers are in `shares`; embeddings and head are whole."""
    layers = shape.layers * shape.layer
    return (shape.parameters - layers + layers / shares) * HALF


def gathered(shape: Shape, shares: int) -> float:
    """Return the bytes of the layers that are whole at a time: the one that runs, and the next."""
    return 2 * shape.layer * HALF if shares > 1 else 0.0


def stages(shape: Shape, options: argparse.Namespace) -> list[tuple[str, Cost]]:
    """Return the stages with the settings to choose: whole models where one fits, and else the fewest GPUs."""
    rows = [("prune, best", prune(shape, options, False, 1)), ("prune, best", prune(shape, options, True, 1))]
    rows.append(("prune, best", prune(shape, options, True, options.gpus)))
    kinds = {
        "tune, next_token": lambda gpus, sharded: tune(shape, options, False, gpus, sharded),
        "tune, distillation": lambda gpus, sharded: tune(shape, options, True, gpus, sharded),
        "evaluate, one model": lambda gpus, sharded: evaluate(shape, options, gpus, sharded),
    }
    for stage, cost in kinds.items():
        if fits(cost(1, False), options):
            rows += [(stage, cost(1, False)), (stage, cost(options.gpus, False))]
        else:
            gpus = next(2**power for power in range(1, 11) if fits(cost(2**power, True), options))
            rows.append((stage, cost(gpus, True)))
    return [(stage, cost) for stage, cost in rows if fits(cost, options)]


def fits(cost: Cost, options: argparse.Namespace) -> bool:
    """Return whether a stage's memory fits with a tenth to spare."""
    return cost.memory <= 0.9 * options.gpu_memory


def makespan(base: float, variants: list[float], workers: int, kills: int = 0, every: float = 0.0) -> float:
    """Return the seconds of a study: the base, then the variants, each on the first free of `workers`.

    `kills` times, one `every` so many seconds, the worker that began first is killed, and its variant begins again.
    """
    waiting = sorted(variants)  # the longest last, so popped first
    running: list[tuple[float, float]] = []  # (start, seconds)
    now, killed = base, 0
    while waiting or running:
        while waiting and len(running) < workers:
            running.append((now, waiting.pop()))
        end = min(start + seconds for start, seconds in running)
        kill = every * (int(now / every) + 1) if killed < kills else end
        now = min(end, kill)
        if kill < end:
            running.sort()
            running[0] = (now, running[0][1])
            killed += 1
        running = [each for each in running if sum(each) > now]
    return now


def study(options: argparse.Namespace, workers: int) -> float:
    """Return the hours of the study that the options describe."""
    tuned = round(options.variants * options.tuned_share)
    seconds = [options.pruned_seconds] * (options.variants - tuned) + [options.tuned_seconds] * tuned
    return makespan(options.base_seconds, [each + options.overhead for each in seconds], workers) / 3600


def arguments() -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--flops", type=float, default=0.4 * 989e12, help="per second of a GPU, in bfloat16")
    parser.add_argument("--double", type=float, default=0.4 * 67e12, help="the same in float64")
    parser.add_argument("--disk", type=float, default=2e9, help="bytes per second")
    parser.add_argument("--gpu-memory", type=float, default=80e9, help="bytes")
    parser.add_argument("--link", type=float, default=0.4 * 900e9, help="bytes per second between GPUs")
    parser.add_argument("--gpus", type=int, default=8, help="of one machine, a process for each")
    parser.add_argument("--calibration-tokens", type=int, default=64 * 256)
    parser.add_argument("--tune-tokens", type=int, default=10_000_000)
    parser.add_argument("--micro-tokens", type=int, default=2048, help="of a forward pass in tune")
    parser.add_argument("--evaluate-tokens", type=int, default=10_000 * 128)
    parser.add_argument("--batch-tokens", type=int, default=2048, help="of a forward pass in evaluate")
    parser.add_argument("--variants", type=int, default=100)
    parser.add_argument("--tuned-share", type=float, default=0.5, help="of the variants that are tuned too")
    parser.add_argument("--base-seconds", type=float, default=300, help="the base, prepared and evaluated")
    parser.add_argument("--pruned-seconds", type=float, default=29, help="a variant that is pruned and evaluated")
    parser.add_argument("--tuned-seconds", type=float, default=98, help="a variant that is tuned too")
    parser.add_argument("--overhead", type=float, default=10, help="seconds of an executor for each variant")
    return parser.parse_args()


def main() -> None:
    """Print the tables."""
    options = arguments()
    rows = [
        [name, stage, cost.setting, cost.gpus, f"{cost.memory / GIB:.0f}", f"{cost.hours(options):.2f}"]
        for name, shape in SHAPES.items()
        for stage, cost in stages(shape, options)
    ]
    head = ["model", "stage", "setting", "GPUs", "GiB each", "hours"]
    print(tabulate(rows, head, tablefmt="github", disable_numparse=True))
    print(f"\n{options.variants} variants, {options.tuned_share:.0%} of them tuned too:\n")
    hours = [[workers, f"{study(options, workers):.2f}"] for workers in (1, 4, 8, 64)]
    print(tabulate(hours, ["workers", "hours"], tablefmt="github", disable_numparse=True))
    print("\nThe sweeps of 12 variants and a base in docs/benchmarks.md:\n")
    checks = [
        ["local, 2 workers, 15 s a variant", makespan(15, [15.0] * 12, 2), "96 to 102"],
        [
            "4 workers on two cores, 30 s a variant, 15 kills, one every 5 s",
            makespan(15, [30.0] * 12, 4, 15, 5.0),
            "164 to 181",
        ],
    ]
    print(tabulate(checks, ["sweep", "simulated s", "measured s"], tablefmt="github", disable_numparse=True))


if __name__ == "__main__":
    main()
