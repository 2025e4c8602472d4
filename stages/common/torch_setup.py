"""Fix everything that torch's results depend on: device, threads, kernels and seeds."""

import os
from contextlib import AbstractContextManager, nullcontext

import torch
import transformers

from stages.common import processes
from stages.common.errors import UserError
from stages.common.params import RunParams

# Set once for the process, like torch's number of threads: the device whose products are taken in bfloat16, if any.
autocast_device: str | None = None


def setup_torch(run: RunParams, seed: int = 0) -> torch.device:
    """Return the device of `run.device` with threads, deterministic kernels and the global seed set."""
    if run.device == "cuda" and not torch.cuda.is_available():
        raise UserError("run.device = 'cuda' but torch sees no CUDA device; expected one of: auto, cpu")
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.set_num_threads(run.threads)
    torch.use_deterministic_algorithms(True)
    # On by default with the line above: fills every new tensor with NaN, a fifth of a training step's time.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.manual_seed(seed)
    # Pruned checkpoints ask for per-layer attributes to be read from the global config; a warning for each is noise.
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    use_cuda = run.device == "cuda" or (run.device == "auto" and torch.cuda.is_available())
    device = torch.device("cuda", processes.local_rank()) if use_cuda else torch.device("cpu")
    global autocast_device
    in_bfloat16 = run.precision == "bfloat16" or (run.precision == "auto" and multiplies_bfloat16(device))
    autocast_device = device.type if in_bfloat16 else None
    return device


def arithmetic() -> AbstractContextManager:
    """Return the context for forward passes: matrix products in the precision that `setup_torch` was given.

    In bfloat16 that is torch's autocast: weights, the residual stream, norms, softmax and losses stay in float32.
    """
    return nullcontext() if autocast_device is None else torch.autocast(autocast_device, torch.bfloat16)


def precision() -> str:
    """Return the precision of matrix products in `arithmetic`: float32 or bfloat16."""
    return "float32" if autocast_device is None else "bfloat16"


def multiplies_bfloat16(device: torch.device) -> bool:
    """Return whether the device has instructions for it; where it has none, bfloat16 is slower than float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
