"""Tokens per second, reading a prompt and writing one token after another."""

import time
from statistics import median

import torch
from transformers import PreTrainedModel

from stages.common.progress import progress


@torch.no_grad()
def speed_metrics(
    model: PreTrainedModel, tokens: torch.Tensor, decode_tokens: int, repetitions: int
) -> dict[str, float]:
    """Return prefill and decode tokens per second of one sequence, medians over `repetitions` after one to warm up.

    tokens: int64, shape (1, length), the prompt. Prefill fills the key-value cache and scores the last position, as
    generation does; decode continues greedily from that cache, one token a step.
    """
    prefill, decode = [], []
    for _ in progress(range(repetitions + 1), "tokens per second"):
        start = clock(tokens)
        output = model(tokens, use_cache=True, logits_to_keep=1)
        middle = clock(tokens)
        for _ in range(decode_tokens):
            following = output.logits[:, -1:].argmax(-1)
            output = model(following, past_key_values=output.past_key_values, use_cache=True)
        end = clock(tokens)
        prefill.append(tokens.shape[1] / (middle - start))
        decode.append(decode_tokens / (end - middle))
    return {
        "prefill_tokens_per_second": median(prefill[1:]),
        "decode_tokens_per_second": median(decode[1:]),
    }


def clock(tokens: torch.Tensor) -> float:
    """Return the time in seconds, once all work on the device of `tokens` is done."""
    if tokens.is_cuda:
        torch.cuda.synchronize(tokens.device)
    return time.perf_counter()
