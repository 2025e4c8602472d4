"""Where pruning spends its time: python benchmarks/passes.py [--base FOLDER] [--methods best wanda]

Each method prunes the model by a fifth of its parameters, single weights by half, on windows of random tokens, which
cost what text costs. One row per method:

passes     forward passes of the calibration tokens through a decoder layer, mean over the pruned layers; a pass through
           some of a layer's matrices counts as their share of its weights
layers     CPU seconds in forward passes of layers
products   CPU seconds in matrix products, factors and solutions elsewhere: statistics, scores, updates
rest       the other CPU seconds, without loading the model; of taylor, the backward passes
"""

import argparse
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from tabulate import tabulate
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import PreTrainedModel

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from stages.common.params import RunParams  # noqa: E402 - the path has to be there first
from stages.common.stage import run  # noqa: E402
from stages.common.torch_setup import setup_torch  # noqa: E402
from stages.common.yaml_file import read_yaml  # noqa: E402
from stages.models.checkpoint import load_model  # noqa: E402
from stages.models.parts import Parts  # noqa: E402
from stages.prune.methods import METHODS  # noqa: E402
from stages.prune.params import PruneParams  # noqa: E402
from stages.prune.pruning import prune  # noqa: E402
from stages.prune.ranges import auto_range  # noqa: E402

SHOWN = ["taylor", "wanda_sp", "flap", "slimgpt", "obs_realign", "best", "wanda", "sparsegpt"]
HEAD = ["method", "passes per layer", "CPU seconds", "layers", "products", "rest"]
PRODUCTS = {"mm", "addmm", "bmm", "baddbmm", "linalg_cholesky_ex", "cholesky_inverse", "cholesky_solve"}


class Meter(TorchDispatchMode):
    """Counts passes through the layers of a model, and times them and the products outside."""

    def __init__(self, model: PreTrainedModel, tokens: int):
        """Watch the layers that `auto` prunes; `tokens` make one pass."""
        super().__init__()
        layers = Parts(model).layers
        self.tokens, self.watched = tokens, [layers[i] for i in range(*auto_range(len(layers)))]
        self.sizes = {each: each.weight.numel() for layer in self.watched for each in linears(layer)}
        self.rows = dict.fromkeys(self.sizes, 0)
        self.depth, self.start, self.layers, self.products = 0, 0.0, 0.0, 0.0

    @property
    def passes(self) -> float:
        """The passes so far."""
        done = sum(self.rows[each] * size for each, size in self.sizes.items())
        return done / self.tokens / sum(self.sizes.values())

    def __torch_dispatch__(self, operator: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Time a product that no layer asks for."""
        if self.depth or operator.overloadpacket.__name__ not in PRODUCTS:
            return operator(*args, **(kwargs or {}))
        start = time.process_time()
        result = operator(*args, **(kwargs or {}))
        self.products += time.process_time() - start
        return result

    def enter(self, *_: Any) -> None:
        """Begin to time where no module around this one is timed."""
        if not self.depth:
            self.start = time.process_time()
        self.depth += 1

    def leave(self, module: nn.Module, _: Any, output: Any) -> None:
        """Count what has passed a matrix, and stop timing at the outermost module."""
        if module in self.rows and "forward" not in vars(module):  # a matrix that is stepped over computes nothing
            self.rows[module] += output.shape[:-1].numel()
        self.depth -= 1
        if not self.depth:
            self.layers += time.process_time() - self.start


def linears(layer: nn.Module) -> list[nn.Linear]:
    """Return the matrices of a layer."""
    return [each for each in layer.modules() if isinstance(each, nn.Linear)]


@contextmanager
def metered(model: PreTrainedModel, tokens: int) -> Iterator[Meter]:
    """Watch `model` while it is pruned on so many calibration tokens."""
    meter, hooks = Meter(model, tokens), []
    for module in (each for layer in Parts(model).layers for each in layer.modules()):
        hooks += [module.register_forward_pre_hook(meter.enter), module.register_forward_hook(meter.leave)]
    try:
        with meter:
            yield meter
    finally:
        for hook in hooks:
            hook.remove()


def main() -> None:
    """Print the table, a row as soon as it is measured."""
    options = arguments()
    setup_torch(RunParams(device="cpu", threads=options.threads, precision="auto"))
    rows = []
    for method in options.methods:
        rows.append([method, *measured(load_model(options.base), method, options.windows, options.length)])
        print(" ".join(rows[-1]), file=sys.stderr)
    print(tabulate(rows, HEAD, "pipe", disable_numparse=True))


def measured(model: PreTrainedModel, method: str, count: int, length: int) -> list[str]:
    """Return the cells of a method's row."""
    generator = torch.Generator().manual_seed(0)
    windows = torch.randint(model.config.vocab_size, (count, length), generator=generator)
    start = time.process_time()
    with metered(model, windows.numel()) as meter:
        prune(model, windows, section(method, count, length))
    seconds = time.process_time() - start
    rest = seconds - meter.layers - meter.products
    return [f"{meter.passes:.2f}", *(f"{each:.1f}" for each in (seconds, meter.layers, meter.products, rest))]


def section(method: str, windows: int, length: int) -> PruneParams:
    """Return section `prune` for a method: this project's, with the choices of the preset."""
    weights = METHODS[method].structure == "weight"
    params = read_yaml(ROOT / "params.yaml")["prune"]
    params |= dict.fromkeys(("structure", "criterion", "allocation", "update", "pattern", "budget"))
    params |= {"method": method, "ratio": 0.5 if weights else 0.2, "ratio_of": "groups" if weights else "parameters"}
    params |= {"attention_layers": "auto", "mlp_layers": "auto", "calibration": {"windows": windows, "length": length}}
    return PruneParams(**params)


def arguments() -> argparse.Namespace:
    """Return the command line's options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", type=Path, default=Path("models/base"), help="checkpoint to prune")
    parser.add_argument("--methods", nargs="+", default=SHOWN, choices=list(METHODS), metavar="METHOD")
    parser.add_argument("--windows", type=int, default=64, help="calibration windows")
    parser.add_argument("--length", type=int, default=128, help="tokens per window")
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


if __name__ == "__main__":
    run("passes", main)
