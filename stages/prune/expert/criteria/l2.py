"""L2: the sum of squared weights of an expert's matrices, as for a block's units (criteria/l2.py)."""

import torch
from transformers import PreTrainedModel

from stages.models.paging import bring_in
from stages.models.parts import Parts
from stages.prune.expert.criteria import ExpertCriterion
from stages.prune.params import PruneParams


class L2(ExpertCriterion):
    @torch.no_grad()
    def score(
        self, model: PreTrainedModel, layers: list[int], windows: torch.Tensor, params: PruneParams
    ) -> list[torch.Tensor]:
        """Return sum w^2 of each expert, an expert at a time, accumulated in float32."""
        parts, scores = Parts(model), []
        for layer in layers:
            bring_in(parts.layers[layer])
            mixture = parts.mixture(parts.layers[layer])
            norms = [
                [torch.linalg.vector_norm(matrix, dtype=torch.float32) for matrix in tensor]
                for tensor in mixture.tensors.values()
            ]
            scores.append(torch.tensor(norms, dtype=torch.float64).square().sum(0))
        return scores
