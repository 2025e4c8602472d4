"""Fix what torch's results depend on: device, threads, kernels and seeds."""

import os

import torch
import transformers

from stages.common.errors import UserError
from stages.common.params import RunParams


def setup_torch(run: RunParams, seed: int = 0) -> torch.device:
    """Return the device of `run.device` with threads, deterministic kernels and the global seed set."""
    if run.device == "cuda" and not torch.cuda.is_available():
        raise UserError("run.device = 'cuda' but torch sees no CUDA device; allowed here: auto, cpu")
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
    return torch.device("cuda" if use_cuda else "cpu")
