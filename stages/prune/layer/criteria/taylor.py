"""Taylor: how much the calibration loss would change without a layer's matrices (Ma et al. 2023, section 3.2).

The sum of |w g| over them, as in Shortened LLaMA (Kim et al. 2024): the salience of a unit, criteria/taylor.py, with
all of a layer's attention and all of its MLP as one unit each.
"""

from dataclasses import replace

import torch
from transformers import PreTrainedModel

from stages.models.prunable import block_modules
from stages.prune.criteria import score_units
from stages.prune.layer.criteria import LayerCriterion
from stages.prune.params import PruneParams


class Taylor(LayerCriterion):
    def score(
        self, model: PreTrainedModel, layers: list[int], windows: torch.Tensor, params: PruneParams
    ) -> torch.Tensor:
        """Return the sum of the salience over the attention and the MLP of each of `layers`."""
        whole = [replace(module, units=1) for module in block_modules(model, layers, layers)]
        scores = torch.cat(score_units("taylor", model, whole, windows, params))
        places = torch.tensor([layers.index(module.layer) for module in whole], device=scores.device)
        return scores.new_zeros(len(layers)).index_add(0, places, scores)
