"""Global: the ranks that lose least together, each loss relative to what the matrix puts out.

A matrix of rank r loses the share of its squared singular values that is cut off. The sum of these losses is least, for
the weights that are left, where every matrix has the rank of the lowest loss + price * weights, or stays whole
(Lagrange's multiplier, as in Shoham & Gersho 1988). Bisection finds the price; units left over go where they save most.
"""

import torch

from stages.prune.rank.allocation import RankAllocation, Size

HALVINGS = 60


class Global(RankAllocation):
    needs_values = True

    def ranks(self, sizes: list[Size], kept: float, values: list[torch.Tensor]) -> list[int | None]:
        """Return the ranks at the lowest price that keeps to `kept` weights, and one unit more each while it lasts."""
        losses = [lost_shares(each) for each in values]
        low, high = 0.0, 1.0  # one weight more is worth less than losing all of a matrix
        for _ in range(HALVINGS):
            price = (low + high) / 2
            total = sum(size.kept(cheapest(size, lost, price)) for size, lost in zip(sizes, losses, strict=True))
            low, high = (low, price) if total <= kept else (price, high)
        ranks = [cheapest(size, lost, high) for size, lost in zip(sizes, losses, strict=True)]
        left = kept - sum(size.kept(rank) for size, rank in zip(sizes, ranks, strict=True))
        while best := best_unit(sizes, losses, ranks, left):
            ranks[best[1]] = best[2]
            left -= sizes[best[1]].unit
        return ranks


def lost_shares(values: torch.Tensor) -> torch.Tensor:
    """Return what a matrix loses at the ranks 0, 1, ..., of all that it puts out: shape (values + 1,)."""
    kept = torch.cat([values.new_zeros(1), values.cumsum(0)])
    return (kept[-1] - kept) / kept[-1].clamp_min(torch.finfo(values.dtype).tiny)


def cheapest(size: Size, lost: torch.Tensor, price: float) -> int | None:
    """Return the rank of the lowest loss + price * weights, None where the whole matrix is cheaper."""
    if size.most < 1:
        return None
    costs = lost[1 : size.most + 1] + price * size.unit * torch.arange(1, size.most + 1, dtype=lost.dtype)
    rank = int(costs.argmin())
    return None if price * size.dense <= costs[rank] else rank + 1


def best_unit(
    sizes: list[Size], losses: list[torch.Tensor], ranks: list[int | None], left: float
) -> tuple[float, int, int] | None:
    """Return (saved per weight, matrix, new rank) of the unit that saves most of those that fit in `left` weights."""
    units = [
        (float(lost[rank] - lost[rank + 1]) / size.unit, i, rank + 1)
        for i, (size, lost, rank) in enumerate(zip(sizes, losses, ranks, strict=True))
        if rank is not None and rank < size.most and size.unit <= left
    ]
    return max(units, default=None)
