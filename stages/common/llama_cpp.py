"""GGUF files in llama.cpp itself, through llama-cpp-python where it is installed (requirements-llamacpp.txt)."""

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np

from stages.common.errors import UserError

MISSING = "llama-cpp-python is not installed (pip install -r requirements-llamacpp.txt)"


def is_installed() -> bool:
    """Return whether llama.cpp can be called from this Python."""
    return importlib.util.find_spec("llama_cpp") is not None


def open_llama(file: Path, context: int, threads: int, every_logit: bool) -> Any:
    """Return the model in `file` as a llama_cpp.Llama on the CPU, read into memory, for up to `context` tokens.

    `every_logit`: keep the logits of every position, in float32 all through, to be compared; otherwise only the last
    position is scored and the key-value cache is float16, as llama.cpp does by itself. Raises UserError, naming the
    file, for one that llama.cpp refuses.
    """
    from llama_cpp import GGML_TYPE_F32, Llama

    cache: dict[str, Any] = {"type_k": GGML_TYPE_F32, "type_v": GGML_TYPE_F32} if every_logit else {}
    try:
        return Llama(
            str(file),
            n_ctx=context,
            n_batch=context,
            n_ubatch=context,
            n_threads=threads,
            n_threads_batch=threads,
            n_gpu_layers=0,
            use_mmap=False,
            logits_all=every_logit,
            verbose=False,
            **cache,
        )
    except ValueError as error:
        raise UserError(f"{file}: llama.cpp cannot load it ({' '.join(str(error).split())})") from None


def logits_of(llama: Any, tokens: list[int]) -> np.ndarray:
    """Return the logits of every position of `tokens`, shape (tokens, vocabulary), float32."""
    llama.reset()
    llama.eval(tokens)
    return llama.scores[: len(tokens)].copy()
