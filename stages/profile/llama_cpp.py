"""The cost of a GGUF file in llama.cpp."""

import random
import time
from pathlib import Path
from statistics import median

from stages.common import llama_cpp
from stages.common.progress import progress
from stages.models.gguf_header import read_header
from stages.profile.memory import CLEAR_REFS, MIB, reset_peak, resident_bytes
from stages.profile.params import ProfileParams


def engine_metrics(file: Path, params: ProfileParams, threads: int) -> dict[str, float]:
    """Return the size of the tensors in `file` and, where llama-cpp-python is installed, memory and speed in it.

    The peak is what the process grew by while the model was read and run: weights, key-value cache (float16) and
    buffers, for the tokens that are measured. Tokens are drawn at random: none is sampled, since that is no part of the
    model. On the CPU, medians over the repetitions after one to warm up.
    """
    weights = {"weights_mib": sum(tensor.nbytes for tensor in read_header(file).tensors.values()) / MIB}
    if not llama_cpp.is_installed():
        print(f"{file}: no memory, no speed: {llama_cpp.MISSING}")
        return weights
    before = reset_peak() if CLEAR_REFS.is_file() else None
    llama = llama_cpp.open_llama(file, params.sequence_length + params.decode_tokens, threads, every_logit=False)
    draw = random.Random(0)
    tokens = [draw.randrange(llama.n_vocab()) for _ in range(params.sequence_length + params.decode_tokens)]
    prompt, following = tokens[: params.sequence_length], tokens[params.sequence_length :]
    prefill, decode = [], []
    for _ in progress(range(params.repetitions + 1), "tokens per second"):
        llama.reset()
        start = time.perf_counter()
        llama.eval(prompt)
        middle = time.perf_counter()
        for token in following:
            llama.eval([token])
        end = time.perf_counter()
        prefill.append(len(prompt) / (middle - start))
        decode.append(len(following) / (end - middle))
    peak = {} if before is None else {"peak_memory_mib": (resident_bytes("VmHWM") - before) / MIB}
    return weights | peak | {
        "prefill_tokens_per_second": median(prefill[1:]),
        "decode_tokens_per_second": median(decode[1:]),
    }  # fmt: skip
