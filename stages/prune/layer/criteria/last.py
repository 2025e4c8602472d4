"""Last: the last of the pruned layers go, and the first n stay (LLM-Pruner's layer-wise pruning, Ma et al. 2023)."""

import torch
from transformers import PreTrainedModel

from stages.prune.layer.criteria import LayerCriterion
from stages.prune.params import PruneParams


class Last(LayerCriterion):
    def score(
        self, model: PreTrainedModel, layers: list[int], windows: torch.Tensor, params: PruneParams
    ) -> torch.Tensor:
        """Return the depth of `layers`, counted from the last."""
        return -torch.tensor(layers, dtype=torch.float64)
