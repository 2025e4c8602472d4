"""Uniform: every matrix gives the same share of its weights (SVD-LLM, Wang et al. 2024)."""

import torch

from stages.prune.rank.allocation import RankAllocation, Size


class Uniform(RankAllocation):
    def ranks(self, sizes: list[Size], kept: float, values: list[torch.Tensor]) -> list[int | None]:
        """Return the nearest ranks, such that all matrices up to each have kept their share, to half a unit."""
        share, wanted, ranks = kept / sum(size.dense for size in sizes), 0.0, list[int | None]()
        for size in sizes:
            wanted += share * size.dense
            rank = min(max(1, round(wanted / size.unit)), size.most)
            whole = size.most < 1 or abs(wanted - size.dense) <= abs(wanted - rank * size.unit)
            ranks.append(None if whole else rank)
            wanted -= size.kept(ranks[-1])
        return ranks
