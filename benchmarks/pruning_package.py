"""Pruning against the torch-pruning package: python benchmarks/pruning_package.py [--methods l2 taylor]

TinyLlama's shape in float32 with random weights; 30 % of the MLP channels of every layer from 4 to 17, by l2 and by
taylor on 10 windows of 64 random tokens. Ours as stage prune does it; torch-pruning as its example for language models,
with every layer ignored that is not pruned and, for taylor, a backward pass of the whole model before. Attention is not
compared: torch-pruning's graph does not stop at rotary embeddings (transformers 5.23), and with grouped queries it
prunes query heads only.

Each measurement runs in its own process, which loads the model as our stages do. Time is from the loaded to the pruned
model, peak memory that of the process until then. The kept channels are compared.
"""

import argparse
import hashlib
import multiprocessing
import statistics
import sys
import tempfile
import time
import warnings
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

import torch
import transformers
from tabulate import tabulate
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from stages.common.params import load_section  # noqa: E402
from stages.models.checkpoint import load_model  # noqa: E402 - the path has to be there first
from stages.profile.memory import resident_bytes  # noqa: E402
from stages.prune.block import pruning as block  # noqa: E402
from stages.prune.memory import return_freed_memory  # noqa: E402
from stages.prune.params import PruneParams  # noqa: E402

LAYERS, RATIO = range(4, 18), 0.3


class Measured(NamedTuple):
    """One pruning."""

    seconds: float
    cpu_seconds: float
    peak_gib: float
    kept: str  # a digest of the gate matrices


def main(methods: list[str], repetitions: int, threads: int) -> None:
    """Measure and print the table."""
    rows = []
    with tempfile.TemporaryDirectory() as name:
        config = AutoConfig.from_pretrained(ROOT / "stages/base/shapes/tinyllama")
        AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(name)
        for method in methods:
            found: dict[str, list[Measured]] = {"ours": [], "torch-pruning": []}
            for _ in range(repetitions):
                for side, runs in found.items():
                    runs.append(in_new_process(side, method, name, threads))
            same = len({run.kept for runs in found.values() for run in runs}) == 1
            for side, runs in found.items():
                medians = [statistics.median(values) for values in list(zip(*runs, strict=True))[:3]]
                rows.append([method, side, *(f"{each:.2f}" for each in medians), "same" if same else "DIFFERENT"])
    print(f"TinyLlama's shape, float32, {threads} threads, {repetitions} repetitions, torch {torch.__version__}\n")
    print(tabulate(rows, ["", "by", "seconds", "CPU", "peak GiB", "channels"], "pipe", disable_numparse=True))


def in_new_process(*arguments) -> Measured:
    """Return `measure(*arguments)` of a new process."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as executor:
        return executor.submit(measure, *arguments).result()


def measure(side: str, method: str, folder: str, threads: int) -> Measured:
    """Load the model and prune it."""
    torch.set_num_threads(threads)
    transformers.logging.disable_progress_bar()
    return_freed_memory()
    windows = torch.randint(0, 1000, (10, 64), generator=torch.Generator().manual_seed(0))
    model = load_model(folder)
    started, cpu_started = time.perf_counter(), time.process_time()
    pruned = (ours if side == "ours" else theirs)(model, windows, method)
    taken = time.perf_counter() - started, time.process_time() - cpu_started
    digest = hashlib.sha256()
    for layer in pruned.model.layers:
        digest.update(layer.mlp.gate_proj.weight.detach().numpy())
    return Measured(*taken, resident_bytes("VmHWM") / 2**30, digest.hexdigest())


def ours(model: PreTrainedModel, windows: torch.Tensor, method: str) -> PreTrainedModel:
    """Prune as stage prune does."""
    section = load_section("prune", PruneParams, ROOT / "params.yaml").model_dump()
    chosen = dict.fromkeys(("structure", "criterion", "allocation", "update", "pattern", "budget"))
    settings = {"method": method, "ratio": RATIO, "attention_layers": None, "mlp_layers": [LAYERS.start, LAYERS.stop]}
    return block.prune(model, windows, PruneParams.model_validate(section | chosen | settings))[0]


def theirs(model: PreTrainedModel, windows: torch.Tensor, method: str) -> PreTrainedModel:
    """Prune by torch-pruning's own pruner and importance."""
    import torch_pruning as tp

    warnings.simplefilter("ignore")  # that norms are pruned with what they belong to
    layers = [model.model.layers[i].mlp for i in LAYERS]
    roots = {each for mlp in layers for each in (mlp.gate_proj, mlp.up_proj)}
    plain = (torch.nn.Linear, torch.nn.Embedding)
    importance = {
        "l2": tp.importance.GroupMagnitudeImportance(p=2, group_reduction="sum", normalizer=None),
        "taylor": tp.importance.GroupTaylorImportance(group_reduction="sum", normalizer=None),
    }
    model.requires_grad_(True)  # its graph is traced through autograd
    pruner = tp.pruner.BasePruner(
        model,
        windows[:1],
        importance=importance[method],
        output_transform=lambda output: output.logits,
        pruning_ratio=RATIO,
        ignored_layers=[module for module in model.modules() if isinstance(module, plain) and module not in roots],
    )
    if method == "taylor":
        model(input_ids=windows, labels=windows, use_cache=False).loss.backward()
    pruner.step()
    return model


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="+", choices=("l2", "taylor"), default=["l2", "taylor"])
    parser.add_argument("--repetitions", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    main(options.methods, options.repetitions, options.threads)
