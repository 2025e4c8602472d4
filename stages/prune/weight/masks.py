"""Select the weights to remove: those with the lowest scores among the weights that compete."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from stages.prune.weight.patterns import group_size

Choose = Callable[[torch.Tensor, slice], torch.Tensor]


@dataclass
class Quota:
    """Hands out how many weights each group gives, such that all that have passed give `share`, to half a weight."""

    share: float
    passed: int = 0

    def take(self, groups: int, size: int) -> torch.Tensor:
        """Return the number of weights that each of the next `groups` groups of `size` gives, shape (groups,)."""
        ends = self.passed + size * torch.arange(groups + 1, dtype=torch.float64)
        self.passed += groups * size
        return (self.share * ends).round().diff()


def lowest(scores: torch.Tensor, pattern: str, quota: Quota) -> torch.Tensor:
    """Return which weights go, a mask of the shape of `scores`, (out, columns); of equal ones the first go."""
    size = {"row": scores.shape[1], "matrix": scores.numel()}.get(pattern) or group_size(pattern)
    groups = scores.reshape(-1, size)
    counts = quota.take(*groups.shape).to(scores.device)
    goes = torch.arange(size, device=scores.device) < counts[:, None]
    return torch.zeros_like(goes).scatter(1, groups.argsort(dim=1, stable=True), goes).view_as(scores)
