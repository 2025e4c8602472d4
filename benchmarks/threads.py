"""The fastest number of CPU threads on this machine: python benchmarks/threads.py

Forward passes through a few random layers of SmolLM2-135M's shape, in float32 and in bfloat16, by every number of
threads in turn. Prints a table and the line to set in params.yaml. It takes half a minute. Other busy programs change
the result, which is intended if they also run during the pipeline.
"""

import sys
import time
from contextlib import nullcontext
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import stages  # noqa: F401 - how OpenMP's threads wait, before torch is imported

# isort: split
import torch
from tabulate import tabulate
from transformers import LlamaConfig, LlamaModel

from stages.check.cores import available_cores
from stages.common.torch_setup import multiplies_bfloat16

SHAPE = {
    "hidden_size": 576, "intermediate_size": 1536, "num_attention_heads": 9, "num_key_value_heads": 3,
    "num_hidden_layers": 2, "vocab_size": 512,
}  # fmt: skip
ROWS, LENGTH = 4, 128  # of the batch
ROUNDS, SECONDS = 5, 0.3  # each number of threads: so many measurements of about so long
TOLERANCE = 0.95  # fewer threads that reach this share of the best speed leave cores to others


def candidates(cores: int) -> list[int]:
    """Return the numbers of threads to try: powers of two, and all cores."""
    return sorted({1 << power for power in range(cores.bit_length()) if 1 << power <= cores} | {cores})


def tokens_per_second(model: LlamaModel, tokens: torch.Tensor, threads: int, bfloat16: bool, seconds: float) -> float:
    """Return the speed of forward passes over about `seconds`."""
    torch.set_num_threads(threads)
    context = torch.autocast("cpu", torch.bfloat16) if bfloat16 else nullcontext()
    with torch.no_grad(), context:
        model(tokens, use_cache=False)
        start, passes = time.perf_counter(), 0
        while time.perf_counter() - start < seconds or not passes:
            model(tokens, use_cache=False)
            passes += 1
    return passes * tokens.numel() / (time.perf_counter() - start)


def best(speeds: dict[int, float]) -> int:
    """Return the smallest number of threads that is as fast as the fastest, but for what a measurement scatters."""
    return min(threads for threads, speed in speeds.items() if speed >= TOLERANCE * max(speeds.values()))


def measure(numbers: list[int], bfloat16: bool, rounds: int = ROUNDS, seconds: float = SECONDS) -> dict[int, float]:
    """Return tokens per second by number of threads, medians over `rounds` in which each has its turn."""
    torch.manual_seed(0)
    model = LlamaModel(LlamaConfig(**SHAPE)).eval()
    tokens = torch.randint(SHAPE["vocab_size"], (ROWS, LENGTH))
    speeds: dict[int, list[float]] = {threads: [] for threads in numbers}
    for _ in range(rounds):
        for threads in numbers:
            speeds[threads].append(tokens_per_second(model, tokens, threads, bfloat16, seconds))
    return {threads: median(values) for threads, values in speeds.items()}


def main() -> None:
    """Measure, print the table and the line."""
    cores = available_cores()
    numbers = candidates(cores)
    speeds = {name: measure(numbers, name == "bfloat16") for name in ("float32", "bfloat16")}
    rows = [[threads, *(f"{speeds[name][threads]:,.0f}" for name in speeds)] for threads in numbers]
    print(tabulate(rows, ["threads", *(f"{name} (tokens/s)" for name in speeds)], tablefmt="pipe"))
    used = "bfloat16" if multiplies_bfloat16(torch.device("cpu")) else "float32"
    print(
        f"\n{cores} cores; run.precision: auto is {used} here. In params.yaml:\n\nrun:\n  threads: {best(speeds[used])}"
    )


if __name__ == "__main__":
    main()
