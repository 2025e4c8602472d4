"""The head's logits in slices of positions: with a vocabulary of 50,000 tokens they would be the largest tensor."""

from collections.abc import Iterator

import torch

from stages.models.parts import Head

LOGITS_AT_ONCE = 2**24  # 64 MiB in float32


def sliced_logits(head: Head, hidden: torch.Tensor) -> Iterator[tuple[slice, torch.Tensor]]:
    """Yield (positions, their logits in float32, shape (positions, vocabulary)) over all of `hidden`, in order.

    hidden: the decoder's last hidden states, shape (positions, hidden size).
    """
    rows = max(1, LOGITS_AT_ONCE // len(head.weight))
    for start in range(0, len(hidden), rows):
        positions = slice(start, min(start + rows, len(hidden)))
        yield positions, head(hidden[positions]).float()
