"""Uniform: every pruned layer gives the same number of experts, or the same share where layers differ already."""

import torch

from stages.prune.expert.allocation import Allocation, Quota, share


class Uniform(Allocation):
    def counts(self, quota: Quota, scores: list[torch.Tensor]) -> list[int]:
        """Return the share of each layer or, under `ratio_of: parameters`, the nearest number for all layers alike."""
        if quota.total is None:
            wanted = [share(experts, quota.ratio) for experts in quota.original]
        else:
            wanted = [round(quota.total / len(quota.original))] * len(quota.original)
        return [count - gone for count, gone in zip(wanted, quota.gone, strict=True)]
