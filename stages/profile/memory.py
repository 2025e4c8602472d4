"""Bytes of the weights and of a forward pass."""

import ctypes
import itertools
from pathlib import Path

import torch
from transformers import PreTrainedModel

from stages.models.checkpoint import stored
from stages.models.parts import Parts

MIB = 2**20
STATUS, CLEAR_REFS = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def parameter_counts(model: PreTrainedModel) -> dict[str, int]:
    """Return all parameters, a tied one counted once, and those that are not zero, a quantised one by its value.

    Of a mixture of experts also `active_parameters`, those that one token passes.
    """
    parameters, parts = list(model.parameters()), Parts(model)
    count = sum(parameter.numel() for parameter in parameters)
    active = {"active_parameters": count - parts.idle_parameters} if parts.has_experts else {}
    return {
        "parameters": count,
        **active,
        "parameters_nonzero": sum(int(torch.count_nonzero(parameter.dequantize())) for parameter in parameters),
    }


def weight_bytes(model: PreTrainedModel) -> int:
    """Return the bytes of all parameters and buffers as they are stored, a tied one counted once."""
    tensors = itertools.chain(model.parameters(), model.buffers())
    return sum(part.numel() * part.element_size() for tensor in tensors for part in stored(tensor))


def memory_metrics(model: PreTrainedModel, tokens: torch.Tensor) -> dict[str, float]:
    """Return `weights_mib`, and of a forward pass over `tokens`, (1, length), `peak_memory_mib`, weights included.

    On CUDA both are measured by torch's allocator, and nothing but `model` may live on the device. On a CPU the weights
    are counted and the forward pass adds what the process's resident set grew by; where the operating system does not
    tell that (it takes Linux's /proc), the peak is absent. `memory_on_cuda` says which, 1 or 0.
    """
    if tokens.is_cuda:
        weights = torch.cuda.memory_allocated(tokens.device)
        torch.cuda.reset_peak_memory_stats(tokens.device)
        forward(model, tokens)
        peak = torch.cuda.max_memory_allocated(tokens.device)
        return {"memory_on_cuda": 1, "weights_mib": weights / MIB, "peak_memory_mib": peak / MIB}
    weights = weight_bytes(model)
    counted = {"memory_on_cuda": 0, "weights_mib": weights / MIB}
    if not CLEAR_REFS.is_file():
        return counted
    # One token first, so that one-time set-up of the libraries is not measured.
    forward(model, tokens[:, :1])
    before = reset_peak()
    forward(model, tokens)
    return counted | {"peak_memory_mib": (weights + resident_bytes("VmHWM") - before) / MIB}


@torch.no_grad()
def forward(model: PreTrainedModel, tokens: torch.Tensor) -> None:
    """Run one forward pass without a cache."""
    model(tokens, use_cache=False)


def reset_peak() -> int:
    """Give free memory back to the system, make the peak of the resident set the present one and return that."""
    ctypes.CDLL(None).malloc_trim(0)
    CLEAR_REFS.write_text("5", encoding="ascii")  # man 5 proc_pid_clear_refs: resets VmHWM
    return resident_bytes("VmRSS")


def resident_bytes(field: str) -> int:
    """Return a memory field of /proc/self/status: VmRSS, the resident set, or VmHWM, its peak.

    Not by getrusage, which hands down the parent's peak across exec.
    """
    line = next(line for line in STATUS.read_text(encoding="ascii").splitlines() if line.startswith(f"{field}:"))
    return int(line.split()[1]) * 1024
