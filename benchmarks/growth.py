"""Growth of time and memory with size: python benchmarks/growth.py

Prunes random Llamas in float32, all layers at ratio 0.3, of several depths, widths and numbers of calibration tokens,
and has one of them answer multiple-choice questions. Every measurement runs in its own process, on one thread, and
starts from files. Prints CPU seconds (without loading, except for streaming), the peak of resident memory above that of
the imports, and the exponents of growth: the slopes of least-squares lines through the logarithms. Draws
docs/growth.png.
"""

import argparse
import multiprocessing
import pydoc_data.topics
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.ticker import LogLocator
from tabulate import tabulate
from tqdm import tqdm
from transformers import LlamaConfig, LlamaForCausalLM

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from stages.base.tokenizer import train_tokenizer  # noqa: E402 - the path has to be there first
from stages.common.params import RunParams, read_params_file  # noqa: E402
from stages.common.torch_setup import setup_torch  # noqa: E402
from stages.evaluate.language_model import BranchingLM  # noqa: E402
from stages.models.checkpoint import load_model, load_tokenizer, save_checkpoint  # noqa: E402
from stages.models.paging import load_paged  # noqa: E402
from stages.profile.memory import reset_peak, resident_bytes  # noqa: E402
from stages.prune.memory import return_freed_memory  # noqa: E402
from stages.prune.params import PruneParams  # noqa: E402
from stages.prune.pruning import prune as prune_model  # noqa: E402

LENGTH, VOCABULARY, HEAD = 128, 1024, 64
BASIC = {"layers": 4, "width": 256, "tokens": 512, "documents": 0}
AXES = {
    "layers": ("decoder layers", (4, 8, 16, 32)),
    "width": ("hidden size (MLP: 2.75 times)", (256, 384, 512, 768)),
    "tokens": ("calibration tokens", (512, 1024, 2048, 4096)),
    "documents": ("documents, 4 answers each", (50, 100, 200, 400)),
}
# Okabe and Ito's palette, told apart by every kind of colour vision; markers tell the methods apart without colour.
METHODS = {
    "l2": ("#0072B2", "o"),
    "wanda_sp": ("#D55E00", "s"),
    "wanda_sp, streaming": ("#000000", "x"),
    "taylor": ("#009E73", "^"),
    "obs": ("#CC79A7", "D"),
    "evaluation": ("#56B4E9", "v"),
}
Found = dict[tuple[str, str], np.ndarray]  # (axis, method): rows of size, seconds, MiB


def main() -> None:
    """Measure all points, print the table, draw the figure."""
    torch.set_num_threads(1)  # also since a pool of threads does not survive a fork
    found: Found = {}
    with tempfile.TemporaryDirectory() as name:
        series = [(a, m) for a in AXES for m in METHODS if (m == "evaluation") == (a == "documents")]
        for axis, method in tqdm(series, mininterval=1):
            points = [BASIC | {axis: size} for size in AXES[axis][1]]
            costs = [in_new_process(method, random_model(Path(name), point), point) for point in points]
            found[axis, method] = np.array([[point[axis], *cost] for point, cost in zip(points, costs, strict=True)])
    rows = []
    for (axis, method), table in found.items():
        cells = [f"{size:g}: {seconds:.2f} s, {mib:.0f} MiB" for size, seconds, mib in table]
        rows.append([axis, method, *cells, f"{exponent(table, 1):.2f}", f"{exponent(table, 2):.2f}"])
    print(tabulate(rows, ["against", "method", "", "", "", "", "time ~", "memory ~"], "pipe", disable_numparse=True))
    draw(found, ROOT / "docs/growth.png")


def exponent(table: np.ndarray, column: int) -> float:
    """Return b of the least-squares fit log(cost) = a + b log(size)."""
    return float(np.polyfit(np.log(table[:, 0]), np.log(table[:, column]), 1)[0])


def random_model(folder: Path, point: dict[str, int]) -> Path:
    """Return the folder in `folder` of a random Llama of the depth and width of `point`, written if it is not there."""
    path, width = folder / f"{point['layers']}x{point['width']}", point["width"]
    if not path.is_dir():
        config = LlamaConfig(
            vocab_size=VOCABULARY, hidden_size=width, intermediate_size=width * 11 // 4,
            num_hidden_layers=point["layers"], num_attention_heads=width // HEAD, head_dim=HEAD,
            num_key_value_heads=width // HEAD, bos_token_id=0, eos_token_id=0, pad_token_id=0,
        )  # fmt: skip
        torch.manual_seed(0)
        save_checkpoint(LlamaForCausalLM(config), train_tokenizer([*pydoc_data.topics.topics.values()], 512), path)
    return path


def in_new_process(*arguments) -> tuple[float, float]:
    """Return `measure(*arguments)` of a new process, which has all imports from this one."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("fork")) as executor:
        return executor.submit(measure, *arguments).result()


def measure(method: str, folder: Path, point: dict[str, int]) -> tuple[float, float]:
    """Return the CPU seconds and the peak memory in MiB of pruning, or evaluating, the model in `folder`."""
    setup_torch(RunParams(device="cpu", threads=1, precision="float32", processes=1, sharded=False))
    return_freed_memory()
    before = reset_peak()
    if method == "evaluation":
        scorer = BranchingLM(load_model(folder), load_tokenizer(folder), 2048)
        started = time.process_time()
        scorer._loglikelihood_tokens(questions(point["documents"]), disable_tqdm=True)
    else:
        prune = section(method.split(",")[0], point)
        windows = torch.randint(0, VOCABULARY, (point["tokens"] // LENGTH, LENGTH))
        paged = method.endswith("streaming")
        model = load_paged(folder, folder / "changed") if paged else load_model(folder)
        started = time.process_time()
        prune_model(model, windows, prune)
    return time.process_time() - started, (resident_bytes("VmHWM") - before) / 2**20


def section(method: str, point: dict[str, int]) -> PruneParams:
    """Return section `prune` for the pruning of all layers at 0.3."""
    everywhere = [0, point["layers"]]
    changes = {"method": method, "ratio": 0.3, "attention_layers": everywhere, "mlp_layers": everywhere}
    return PruneParams.model_validate(read_params_file(ROOT / "params.yaml")["prune"] | changes)


def questions(documents: int) -> list:
    """Return lm-eval's requests for `documents` random contexts of 96 tokens, each with 4 answers of 8."""
    requests = []
    for context in torch.randint(0, VOCABULARY, (documents, 96)).tolist():
        requests += [(("", ""), context, answer) for answer in torch.randint(0, VOCABULARY, (4, 8)).tolist()]
    return requests


def draw(found: Found, file: Path) -> None:
    """Draw time above and memory below, a column for each axis, both scales logarithmic."""
    plt.rcParams.update({"font.size": 11, "axes.spines.top": False, "axes.spines.right": False})
    figure, panels = plt.subplots(2, len(AXES), figsize=(17, 9), layout="constrained")
    for (axis, method), table in found.items():
        column, (colour, marker) = list(AXES).index(axis), METHODS[method]
        for row, kind in enumerate(("seconds of the processor", "peak memory (MiB)")):
            panel = panels[row, column]
            label = f"{method}: {exponent(table, row + 1):.2f}"
            panel.loglog(table[:, 0], table[:, row + 1], color=colour, marker=marker, label=label)
            panel.set(xlabel=AXES[axis][0], ylabel=kind)
            panel.set_xticks(table[:, 0], [f"{size:g}" for size in table[:, 0]])
            panel.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            panel.yaxis.set_major_formatter("{x:g}")
            panel.minorticks_off()
            panel.legend(title="exponents", loc="lower left", bbox_to_anchor=(0, 1), ncols=2, fontsize=9, frameon=False)
    for panel in panels.flat:
        bottom, top = panel.get_ylim()
        if top < 4 * bottom:  # what hardly changes is not to look like a slope
            panel.set_ylim(bottom / 2, top * 2)
    figure.savefig(file, dpi=110, metadata={"Software": None})


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    main()
