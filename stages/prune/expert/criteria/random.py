"""Random: one uniform number per expert, drawn by `prune.seed`: what any criterion must beat (Li et al. 2022)."""

import torch
from transformers import PreTrainedModel

from stages.models.parts import Parts
from stages.prune.expert.criteria import ExpertCriterion
from stages.prune.params import PruneParams


class Random(ExpertCriterion):
    def score(
        self, model: PreTrainedModel, layers: list[int], windows: torch.Tensor, params: PruneParams
    ) -> list[torch.Tensor]:
        """Return uniform numbers in [0, 1)."""
        generator, parts = torch.Generator().manual_seed(params.seed), Parts(model)
        experts = [parts.mixture(parts.layers[layer]).experts for layer in layers]
        return [torch.rand(count, generator=generator, dtype=torch.float64) for count in experts]
