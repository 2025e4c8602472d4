"""Pruning against its necessary arithmetic: python benchmarks/pruning.py [--model FOLDER]

TinyLlama's shape in float32 with random weights, or the Llama in FOLDER; layers [4, 18), ratio 0.3; taylor on 10
windows of 64 random tokens, refit and obs on the same, for one layer's MLP. Each pair runs in turn, in one process.
Times are wall time and CPU time, which other jobs disturb less; medians over --repetitions. Surgery runs once, since it
removes the units.
"""

import argparse
import os
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

from stages.models.checkpoint import load_model  # noqa: E402 - the path has to be there first
from stages.models.prunable import Prunable, block_modules  # noqa: E402
from stages.models.surgery import keep_units  # noqa: E402
from stages.prune.activations import Activations  # noqa: E402
from stages.prune.block.criteria.obs import removal_errors  # noqa: E402
from stages.prune.block.update.refit import Refit  # noqa: E402
from stages.prune.criteria.l2 import L2  # noqa: E402
from stages.prune.criteria.taylor import Taylor  # noqa: E402
from stages.prune.memory import return_freed_memory  # noqa: E402
from stages.prune.units import share_of_units, strongest  # noqa: E402

LAYERS, RATIO = range(4, 18), 0.3
FILE_REPETITIONS = 3  # times --repetitions: files are quick to measure, and their times vary most
HEAD = ["", "seconds", "CPU", "beside", "seconds", "CPU", "ratio", "by CPU", "aim"]
Seconds = tuple[float, float]  # on the clock, and of the processor


class Params:
    """What of section `prune` the criteria read."""

    taylor = "param_first"


def main(folder: Path | None, repetitions: int, threads: int) -> None:
    """Measure and print the table."""
    torch.set_num_threads(threads)
    transformers.logging.disable_progress_bar()
    return_freed_memory()
    with tempfile.TemporaryDirectory() as name:
        folder = folder or random_model(Path(name) / "model")
        rows = files(folder, Path(name), repetitions)
        model = load_model(folder)
        modules = block_modules(model, LAYERS, LAYERS)
        windows = torch.randint(0, 1000, (10, 64), generator=torch.Generator().manual_seed(0))
        rows.append(backward_passes(model, modules, windows, repetitions))
        rows += one_layer(model, modules[1], windows, repetitions)
        rows += weights_alone(model, modules, repetitions)
    print(f"{threads} threads, {repetitions} repetitions, torch {torch.__version__}\n")
    print(tabulate(rows, HEAD, "pipe", disable_numparse=True))


def random_model(folder: Path) -> Path:
    """Return `folder` with TinyLlama's shape in float32 and random weights."""
    config = AutoConfig.from_pretrained(ROOT / "stages/base/shapes/tinyllama")
    AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(folder)
    return folder


def timed(action: Callable[[], object]) -> Seconds:
    """Return what `action` takes."""
    start, cpu_start = time.perf_counter(), time.process_time()
    action()
    return time.perf_counter() - start, time.process_time() - cpu_start


def row(name: str, ours: list[Seconds], beside: str, theirs: list[Seconds], aim: str = "") -> list[str]:
    """Return a row of the table from the times of all repetitions."""
    mine, other = ([statistics.median(each) for each in zip(*side, strict=True)] for side in (ours, theirs))
    ratios = [f"{one / another:.2f}" for one, another in zip(mine, other, strict=True)]
    return [name, *(f"{each:.2f}" for each in mine), beside, *(f"{each:.2f}" for each in other), *ratios, aim]


def files(folder: Path, scratch: Path, repetitions: int) -> list[list[str]]:
    """Time loading and saving a checkpoint against copying its files, from and to the page cache where that holds.

    What was written before is on the disk when a step begins, or the system would write it while the step is timed. The
    model is in memory while its files are copied, as it is while it is saved: the system stops a process that has
    written more than a fifth of the memory available, and that is a whole model less.
    """
    loading: list[Seconds] = []
    saving: list[Seconds] = []
    copying: list[Seconds] = []
    models: list[PreTrainedModel] = []
    for _ in range(FILE_REPETITIONS * repetitions):
        os.sync()
        loading.append(timed(lambda: models.append(load_model(folder))))
        copying.append(timed(lambda: shutil.copytree(folder, scratch / "copy")))
        shutil.rmtree(scratch / "copy")
        os.sync()
        saving.append(timed(lambda: models.pop().save_pretrained(scratch / "copy")))
        shutil.rmtree(scratch / "copy")
    copy = "a copy of the files"
    return [row("loading, checks included", loading, copy, copying, "1.3"), row("saving", saving, copy, copying, "1.3")]


def backward_passes(
    model: PreTrainedModel, modules: list[Prunable], windows: torch.Tensor, repetitions: int
) -> list[str]:
    """Time taylor's scores against a forward and backward pass of the whole model on the same tokens."""

    def plain() -> None:
        model.requires_grad_(True)
        model(input_ids=windows, labels=windows, use_cache=False).loss.backward()
        model.zero_grad(set_to_none=True)
        model.requires_grad_(False)

    ours, theirs = [], []
    for _ in range(repetitions):
        ours.append(timed(lambda: Taylor().score(model, modules, windows, Params())))
        theirs.append(timed(plain))
    return row("taylor, 10 x 64 tokens", ours, "forward and backward of the whole model", theirs, "0.85")


@torch.no_grad()
def one_layer(model: PreTrainedModel, mlp: Prunable, windows: torch.Tensor, repetitions: int) -> list[list[str]]:
    """Time refit and obs of one layer's MLP against bare products and factors of the sizes that they need."""
    activations = Activations(model, windows)
    activations.inputs(mlp)  # the windows are at its layer
    keep = torch.arange(share_of_units([mlp], RATIO), mlp.units)
    dense, kept = mlp.output.weight.clone(), len(keep)
    weight = dense.double()
    layer, hidden = activations.layers[mlp.layer], activations.hidden[0]
    x = torch.randn(windows.numel(), mlp.units, dtype=torch.float64)
    hessian = x.T @ x / len(x) + 0.1 * torch.eye(mlp.units, dtype=torch.float64)

    def refit_products() -> None:
        layer(hidden, **activations.settings[mlp.layer])
        _ = x.T @ x
        lost = weight[:, kept:] @ hessian[kept:, :kept]
        torch.cholesky_solve(lost.T, torch.linalg.cholesky(hessian[:kept, :kept]))

    def obs_products() -> None:
        torch.cholesky_inverse(torch.linalg.cholesky(hessian))
        # Every unit's update of what is left then: half of a product with all columns, a third with rows and columns.
        half, third = mlp.units // 2, mlp.units // 3
        _ = weight[:, :half] @ hessian[:half], hessian[:, :third] @ hessian[:third]

    times: list[list[Seconds]] = [[], [], [], []]
    for _ in range(repetitions):
        times[0].append(timed(lambda: Refit().update(mlp, keep, activations.inputs(mlp))))
        mlp.output.weight.copy_(dense)
        times[1].append(timed(refit_products))
        times[2].append(timed(lambda: removal_errors(weight, hessian, mlp.units)))
        times[3].append(timed(obs_products))
    return [
        row("refit of an MLP", times[0], "its products", times[1]),
        row("obs of an MLP's units", times[2], "its products", times[3]),
    ]


def weights_alone(model: PreTrainedModel, modules: list[Prunable], repetitions: int) -> list[list[str]]:
    """Time l2 scores, and then scores and surgery, against the sum of squares of the same weights."""
    weights = [linear.weight for module in modules for linear, _ in module.matrices]

    def plain() -> None:
        for weight in weights:
            torch.linalg.vector_norm(weight)

    with torch.no_grad():
        theirs = [timed(plain) for _ in range(repetitions)]
        ours = [timed(lambda: L2().score(model, modules, None, None)) for _ in range(repetitions)]

        def prune() -> None:
            for module, score in zip(modules, L2().score(model, modules, None, None), strict=True):
                keep_units(module, strongest(score.sum(0), share_of_units([module], RATIO)))

        surgery = timed(prune)
    return [
        row("l2: scores", ours, "one sum of squares", theirs),
        row("l2: scores and surgery", [surgery], "one sum of squares", theirs, "3"),
    ]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="a checkpoint to measure on")
    parser.add_argument("--repetitions", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    main(options.model, options.repetitions, options.threads)
