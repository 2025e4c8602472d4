"""Dropout with faster random numbers on the CPU: a third of torch's time, which is a seventh of a LoRA step."""

import torch
import torch.nn.functional as F
from torch import nn

RANGE = 2**16


class Dropout(nn.Module):
    """Set each number to zero with probability `p`, to the nearest 1/65536, and scale the others to keep the mean.

    16 random bits decide on each number. Elsewhere than on the CPU, torch's own.
    """

    def __init__(self, p: float):
        """Drop numbers with probability `p`, 0 <= p < 1."""
        super().__init__()
        self.p = p

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return `x`, in training with some numbers dropped; drawn from the global seed."""
        if not self.training or x.device.type != "cpu":
            return F.dropout(x, self.p, self.training)
        kept = round((1 - self.p) * RANGE)
        words = torch.empty(-(-x.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
        bits = words.view(torch.int16)[: x.numel()].view(x.shape)
        return x * (bits < kept - RANGE // 2).to(x.dtype).mul_(RANGE / kept)
