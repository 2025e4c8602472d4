"""Adaptive: layers that change their input least give most, step by step (Adapt-Pruner, Wang et al. 2025).

A layer's relative share is 1 - AMPLITUDE times its importance, the block influence scaled to [-1, 1]. It is measured
again in each of `prune.iterative_steps`, and what the layers gave before counts: small steps even the layers out.
"""

import torch

from stages.prune.activations import block_influence
from stages.prune.block.allocation import RankedAllocation
from stages.prune.block.task import Task

AMPLITUDE = 0.5


class Adaptive(RankedAllocation):
    def keys(self, task: Task) -> list[torch.Tensor]:
        """Return the share that each module gives in this step over the relative share of its layer."""
        influence = block_influence(task.model, task.windows)[sorted({module.layer for module in task.modules})]
        deviation = influence - influence.mean()
        importance = deviation / deviation.abs().max().clamp_min(torch.finfo(deviation.dtype).tiny)
        relative = dict(zip(sorted({module.layer for module in task.modules}), 1 - AMPLITUDE * importance, strict=True))
        return [
            torch.arange(1, module.units + 1, dtype=torch.float64) / module.units / relative[module.layer]
            for module in task.modules
        ]
