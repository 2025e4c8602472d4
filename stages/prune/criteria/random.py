"""Random: one uniform number per unit, drawn by `prune.seed`: what any criterion must beat (Li et al. 2022)."""

import torch
from transformers import PreTrainedModel

from stages.models.prunable import Prunable
from stages.prune.criteria import Criterion
from stages.prune.params import PruneParams


class Random(Criterion):
    def score(
        self, model: PreTrainedModel, modules: list[Prunable], windows: torch.Tensor, params: PruneParams
    ) -> list[torch.Tensor]:
        """Return uniform numbers in [0, 1), per module a (1, units) tensor."""
        generator = torch.Generator().manual_seed(params.seed)
        return [torch.rand(1, module.units, generator=generator) for module in modules]
