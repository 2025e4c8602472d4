"""The examples of each step's batch, and a batch as tensors."""

from functools import lru_cache
from typing import TypeVar

import torch

from stages.tune.examples import IGNORE, Example

Item = TypeVar("Item")
MEGABATCH = 50  # batches among which examples are sorted by length


class Batches:
    """Batches of `batch_size` examples; which ones is a function of (seed, step) only.

    An epoch is a shuffle without its last incomplete batch. Within runs of MEGABATCH batches the examples are sorted by
    length, so that a batch holds like lengths and needs little padding; then the batches are shuffled.
    """

    def __init__(self, lengths: list[int], batch_size: int, seed: int):
        self.lengths = lengths
        self.batch_size = batch_size
        self.seed = seed
        self.per_epoch = len(lengths) // batch_size
        self.epoch = lru_cache(maxsize=1)(self.draw_epoch)

    def at(self, step: int) -> list[int]:
        """Return the indices of the examples of `step` (0-based), shortest first."""
        epoch, number = divmod(step, self.per_epoch)
        return self.epoch(epoch)[number]

    def draw_epoch(self, epoch: int) -> list[list[int]]:
        """Return the batches of one pass through the examples."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
        shuffled = torch.randperm(len(self.lengths), generator=generator)[: self.per_epoch * self.batch_size]
        batches = []
        for part in split(shuffled.tolist(), MEGABATCH * self.batch_size):
            batches += split(sorted(part, key=self.lengths.__getitem__), self.batch_size)
        return [batches[index] for index in torch.randperm(len(batches), generator=generator).tolist()]


def collate(examples: list[Example]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return tokens and labels, both (examples, longest), padded on the right.

    The model needs no attention mask: it is causal, so no token sees the padding after it, and the padding's own
    labels are IGNORE. Any token can stand in it.
    """
    tokens = torch.nn.utils.rnn.pad_sequence([example.tokens for example in examples], batch_first=True)
    labels = [example.labels for example in examples]
    return tokens, torch.nn.utils.rnn.pad_sequence(labels, batch_first=True, padding_value=IGNORE)


def split(items: list[Item], size: int) -> list[list[Item]]:
    """Return `items` in runs of `size`, the last one shorter."""
    return [items[start : start + size] for start in range(0, len(items), size)]
