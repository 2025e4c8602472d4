"""Cut text into token windows."""

import torch
from transformers import PreTrainedTokenizerBase

from stages.common.errors import UserError

SEPARATOR = "\n\n"


def token_stream(texts: list[str], tokenizer: PreTrainedTokenizerBase) -> torch.Tensor:
    """Return all documents, joined by a blank line, as one int64 vector of tokens, as the tokenizer makes them."""
    # A stream is longer than any context on purpose; the tokenizer's warning about that would be noise.
    return torch.tensor(tokenizer(SEPARATOR.join(texts), verbose=False)["input_ids"], dtype=torch.int64)


def consecutive_windows(stream: torch.Tensor, length: int) -> torch.Tensor:
    """Return the non-overlapping windows of `length` tokens, shape (windows, length); the rest is dropped."""
    return stream[: len(stream) // length * length].view(-1, length)


def random_windows(stream: torch.Tensor, count: int, length: int, seed: int, key: str) -> torch.Tensor:
    """Return `count` of the stream's non-overlapping windows, drawn by `seed`, shape (count, length).

    Raises UserError, naming params `key`.windows, when the text holds fewer.
    """
    windows = consecutive_windows(stream, length)
    if count > len(windows):
        raise UserError(
            f"{key}.windows = {count} is more than the text holds; "
            f"expected at most {len(windows)} windows of {key}.length = {length} tokens"
        )
    order = torch.randperm(len(windows), generator=torch.Generator().manual_seed(seed))
    return windows[order[:count]]
