"""Global: all layers compete; the experts of the lowest scores, each relative to the mean of its layer, go first.

Scores of different layers are not comparable: the residual stream grows with depth, and with it what experts put out.
Each layer keeps as many experts as its router chooses for a token.
"""

import torch

from stages.prune.expert.allocation import Allocation, Quota, share


class Global(Allocation):
    def counts(self, quota: Quota, scores: list[torch.Tensor]) -> list[int]:
        """Return how many of the lowest of all relative scores are in each layer."""
        total = share(sum(quota.original), quota.ratio) if quota.total is None else round(quota.total)
        relative = [score.sort().values / score.mean().clamp_min(torch.finfo(score.dtype).tiny) for score in scores]
        order = sorted(
            (value, layer, count)
            for layer, values in enumerate(relative)
            for count, value in enumerate(values[: max(0, len(values) - quota.least)].tolist())
        )
        wanted = total - sum(quota.gone)
        counts = [0] * len(scores)
        for _, layer, _ in order[:wanted]:
            counts[layer] += 1
        counts[0] += max(0, wanted - len(order))  # more than all layers can give
        return counts
