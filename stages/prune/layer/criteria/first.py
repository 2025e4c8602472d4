"""First: remove the first layers of the range."""

import torch
from transformers import PreTrainedModel

from stages.prune.layer.criteria import LayerCriterion
from stages.prune.params import PruneParams


class First(LayerCriterion):
    def score(
        self, model: PreTrainedModel, layers: list[int], windows: torch.Tensor, params: PruneParams
    ) -> torch.Tensor:
        """Return the depth of `layers`."""
        return torch.tensor(layers, dtype=torch.float64)
