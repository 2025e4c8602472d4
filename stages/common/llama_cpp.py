"""GGUF files in llama.cpp itself, through llama-cpp-python where it is installed (requirements-llamacpp.txt)."""

import ctypes
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


def text_of(llama: Any, tokens: list[int]) -> str:
    """Return the text of tokens, special ones left out, as llama.cpp writes it piece by piece.

    The blank that a SentencePiece tokenizer puts before a text is removed. Not by llama_cpp.Llama.detokenize: it
    removes a blank after every BOS, and cuts pieces longer than 32 bytes.
    """
    text = b"".join(piece(llama, token) for token in tokens)
    if llama.metadata.get("tokenizer.ggml.add_space_prefix") == "true":
        text = text.removeprefix(b" ")
    return text.decode("utf-8", errors="replace")


def piece(llama: Any, token: int) -> bytes:
    """Return the bytes of one token, none for a special one."""
    from llama_cpp import llama_token_to_piece

    size = 32
    while True:
        buffer = ctypes.create_string_buffer(size)
        length = llama_token_to_piece(llama._model.vocab, token, buffer, size, 0, False)
        if length >= 0:
            return buffer.raw[:length]
        size = -length  # what it takes
