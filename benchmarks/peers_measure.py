"""One pruning of peers.py, in a process of its own: python benchmarks/peers_measure.py JSON. Prints a line of JSON."""

import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

import peers_slicegpt  # noqa: E402 - the path has to be there first
import peers_svdllm  # noqa: E402
import peers_wanda  # noqa: E402
from real_model import MIRROR, read_texts  # noqa: E402

from stages.common.params import RunParams, read_params_file  # noqa: E402
from stages.common.torch_setup import arithmetic, setup_torch  # noqa: E402
from stages.common.windows import consecutive_windows, random_windows, token_stream  # noqa: E402
from stages.data.library import texts_of  # noqa: E402
from stages.evaluate.perplexity import window_losses  # noqa: E402
from stages.models.checkpoint import load_model, load_tokenizer  # noqa: E402
from stages.prune.params import PruneParams  # noqa: E402
from stages.prune.pruning import prune  # noqa: E402


def main(job: dict[str, Any]) -> None:
    """Prune and measure as `job` says."""
    params, seed = dict(job["params"]), job["seed"]
    set_precision(params.pop("precision", "float32"))
    tokenizer = load_tokenizer(Path(job["base"]))
    calibration, *held_out = (
        (Path(file).stem, token_stream(texts_of(file, read.table), tokenizer))
        for file, read in read_texts(MIRROR).items()
    )
    windows = random_windows(calibration[1], *job["calibration"], seed, "prune.calibration")
    model = load_model(Path(job["base"]))
    before = model.num_parameters()
    clone = Path(job["clone"])
    start = time.process_time()
    match job["tool"]:
        case "base":
            pass
        case "ours":
            model = prune(model, windows, ours(job["method"], seed, params))[0]
        case "wanda":
            peers_wanda.prune(clone, model, windows, job["method"], job["size"])
        case "svdllm":
            peers_svdllm.prune(clone, model, windows, **params)
        case "slicegpt":
            peers_slicegpt.prune(clone, model, windows, **params)
    row: dict[str, Any] = {
        "cpu_seconds": round(time.process_time() - start, 1),
        "peak_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "parameters_before": before,
        "parameters_nonzero": sum(int(each.count_nonzero()) for each in model.parameters()),
    }
    print(json.dumps(row | {"commit": commit(clone), "losses": losses(model, dict(held_out))}))


def set_precision(name: Any) -> None:
    """Set torch up with one thread and forward passes in this precision."""
    setup_torch(RunParams(device="cpu", threads=1, precision=name, processes=1, sharded=False), 42)


def ours(method: str, seed: int, changes: dict[str, Any]) -> PruneParams:
    """Return this project's params for a method."""
    section = read_params_file(ROOT / "params.yaml")["prune"]
    section |= dict.fromkeys(("structure", "criterion", "allocation", "update", "pattern", "budget"))
    section |= {"calibration": {"windows": 64, "length": 128}}
    return PruneParams.model_validate(section | {"method": method, "seed": seed} | changes)


@torch.no_grad()
def losses(model: PreTrainedModel, streams: dict[str, torch.Tensor]) -> dict[str, list[float]]:
    """Return the loss of each of the first 16 windows of every text, in bfloat16 where that is fast."""
    set_precision("auto")
    windows = {name: consecutive_windows(stream, 1024)[:16] for name, stream in streams.items()}
    with arithmetic():
        return {name: window_losses(model.eval(), each, 4096, name).tolist() for name, each in windows.items()}


def commit(clone: Path) -> str:
    """Return the commit of a repository."""
    return subprocess.check_output(["git", "-C", str(clone), "rev-parse", "HEAD"], text=True).strip()


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
