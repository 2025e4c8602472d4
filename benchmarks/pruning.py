"""What pruning costs beside the arithmetic it cannot do without: python benchmarks/pruning.py [--model FOLDER]

TinyLlama's shape in float32 with random weights, or the Llama in FOLDER; layers [4, 18), ratio 0.3; taylor on 10
windows of 64 random tokens. Each pair runs in turn, in one process. Arithmetic is timed in seconds of the processor on
one thread, which other jobs on the machine change little; files in seconds of the clock. Medians over --repetitions.
"""

import argparse
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
import transformers
from tabulate import tabulate
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from stages.common.checkpoint import load_model  # noqa: E402 - the path has to be there first
from stages.prune.criteria import l2, taylor  # noqa: E402
from stages.prune.memory import return_freed_memory  # noqa: E402
from stages.prune.selection import share_of_units  # noqa: E402
from stages.prune.sequence import strongest  # noqa: E402
from stages.prune.surgery import keep_units  # noqa: E402
from stages.prune.units import Module, block_modules  # noqa: E402

LAYERS, RATIO = range(4, 18), 0.3


class Params:
    """What of section `prune` the criteria read."""

    taylor = "param_first"


def main(folder: Path | None, repetitions: int) -> None:
    """Measure and print the table."""
    torch.set_num_threads(1)
    transformers.logging.disable_progress_bar()
    return_freed_memory()
    with tempfile.TemporaryDirectory() as name:
        folder = folder or random_model(Path(name) / "model")
        rows = [files(folder, Path(name), repetitions)]
        model = load_model(folder)
        modules = block_modules(model, LAYERS, LAYERS)
        windows = torch.randint(0, 1000, (10, 64), generator=torch.Generator().manual_seed(0))
        rows.append(backward_passes(model, modules, windows, repetitions))
        rows += weights_alone(modules, repetitions)
    head = ["", "seconds", "beside", "seconds", "ratio", "aim"]
    print(tabulate(rows, head, "pipe", disable_numparse=True))


def random_model(folder: Path) -> Path:
    """Return `folder` with TinyLlama's shape in float32 and random weights."""
    config = AutoConfig.from_pretrained(ROOT / "stages/base/shapes/tinyllama")
    AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(folder)
    return folder


def timed(clock: Callable[[], float], action: Callable[[], object]) -> float:
    """Return the seconds that `action` takes by `clock`."""
    start = clock()
    action()
    return clock() - start


def row(name: str, ours: list[float], beside: str, theirs: list[float], bar: str) -> list[str]:
    """Return a row of the table from the times of all repetitions."""
    mine, other = statistics.median(ours), statistics.median(theirs)
    return [name, f"{mine:.2f}", beside, f"{other:.2f}", f"{mine / other:.2f}", bar]


def files(folder: Path, scratch: Path, repetitions: int) -> list[str]:
    """Time loading the checkpoint against copying its files, both from the page cache where it holds them."""
    ours, theirs = [], []
    for _ in range(repetitions):
        theirs.append(timed(time.perf_counter, lambda: shutil.copytree(folder, scratch / "copy")))
        shutil.rmtree(scratch / "copy")
        ours.append(timed(time.perf_counter, lambda: load_model(folder)))
    return row("loading, checks included", ours, "a copy of the files", theirs, "1.3")


def backward_passes(
    model: PreTrainedModel, modules: list[Module], windows: torch.Tensor, repetitions: int
) -> list[str]:
    """Time taylor's scores against a forward and backward pass of the whole model on the same tokens."""

    def plain() -> None:
        model.requires_grad_(True)
        model(input_ids=windows, labels=windows, use_cache=False).loss.backward()
        model.zero_grad(set_to_none=True)
        model.requires_grad_(False)

    ours, theirs = [], []
    for _ in range(repetitions):
        ours.append(timed(time.process_time, lambda: taylor.score(model, modules, windows, Params())))
        theirs.append(timed(time.process_time, plain))
    return row("taylor, 10 x 64 tokens", ours, "forward and backward of the whole model", theirs, "0.85")


def weights_alone(modules: list[Module], repetitions: int) -> list[list[str]]:
    """Time l2 scores, and then scores and surgery, against the sum of squares of the same weights."""
    weights = [linear.weight for module in modules for linear, _ in module.matrices]

    def plain() -> None:
        for weight in weights:
            torch.linalg.vector_norm(weight)

    with torch.no_grad():
        theirs = [timed(time.process_time, plain) for _ in range(repetitions)]
        ours = [timed(time.process_time, lambda: l2.score(None, modules, None, None)) for _ in range(repetitions)]

        def prune() -> None:
            for module, score in zip(modules, l2.score(None, modules, None, None), strict=True):
                keep_units(module, strongest(score.sum(0), share_of_units([module], RATIO)))

        surgery = timed(time.process_time, prune)  # once: the units are gone then
    return [
        row("l2: scores", ours, "one sum of squares", theirs, ""),
        row("l2: scores and surgery", [surgery], "one sum of squares", theirs, "3"),
    ]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="a checkpoint to measure on")
    parser.add_argument("--repetitions", type=int, default=3)
    options = parser.parse_args()
    main(options.model, options.repetitions)
