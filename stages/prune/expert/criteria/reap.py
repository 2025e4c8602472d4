"""REAP: how much an expert adds to the residual stream where the router sends tokens (Lasby et al. 2025).

The mean over the tokens sent to an expert of the router's weight times the norm of its output, g(x) ||f(x)||_2. The
weights are those that the model multiplies by, normalised over the chosen experts where the family does so.
"""

import torch

from stages.common.torch_setup import arithmetic
from stages.models.mixture import Mixture
from stages.prune.expert.criteria import RoutedCriterion


class Reap(RoutedCriterion):
    def total(
        self, mixture: Mixture, tokens: torch.Tensor, weights: torch.Tensor, chosen: torch.Tensor
    ) -> torch.Tensor:
        """Return the sum of g(x) ||f(x)||_2, one expert at a time."""
        sums = torch.zeros(mixture.experts, dtype=torch.float64)
        for expert in range(mixture.experts):
            here, place = torch.where(chosen == expert)
            if not len(here):
                continue
            alone = chosen[here, place][:, None]
            with arithmetic():
                outputs = mixture.stack(tokens[here], alone, torch.ones_like(weights[here, :1]))
            norms = torch.linalg.vector_norm(outputs.double(), dim=1)
            sums[expert] = (weights[here, place].double() * norms).sum()
        return sums

    def worth(self, total: torch.Tensor, routed: torch.Tensor, tokens: int) -> torch.Tensor:
        """Return the mean over the tokens sent to each expert, 0 where there is none."""
        return total / routed.clamp_min(1)
