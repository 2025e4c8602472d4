"""Taylor: how much the calibration loss would change without an expert's matrices (Ma et al. 2023, section 3.2).

The salience of all weights of an expert as of one unit: criteria/taylor.py has the variants of `prune.taylor`.
"""

import torch
from transformers import PreTrainedModel

from stages.models.parts import Parts
from stages.prune.criteria.taylor import SECOND_ORDER, salience
from stages.prune.expert.criteria import ExpertCriterion
from stages.prune.gradients import gradients
from stages.prune.params import PruneParams


class Taylor(ExpertCriterion):
    def score(
        self, model: PreTrainedModel, layers: list[int], windows: torch.Tensor, params: PruneParams
    ) -> list[torch.Tensor]:
        """Return the salience of each expert; UserError when the calibration loss is not finite."""
        parts = Parts(model)
        mixtures = [parts.mixture(parts.layers[layer]) for layer in layers]
        scores = [torch.zeros(mixture.experts, dtype=torch.float64) for mixture in mixtures]
        places: dict[torch.Tensor, int] = {
            tensor: i for i, mixture in enumerate(mixtures) for tensor in mixture.tensors.values()
        }

        def reduce(weight: torch.Tensor, gradient: torch.Tensor, squared: torch.Tensor | None) -> None:
            for expert in range(len(weight)):
                square = None if squared is None else squared[expert]
                values = salience(weight[expert], gradient[expert], square, params.taylor)
                values = values if params.taylor == "vectorize" else values.abs_()
                scores[places[weight]][expert] += values.double().sum().item()

        gradients(model, windows, list(places), reduce, per_window=params.taylor in SECOND_ORDER)
        return [score.abs() for score in scores]
