"""Frequency: the share of the calibration tokens that the router sends to an expert (Lu et al. 2024 compare to it)."""

import torch

from stages.models.mixture import Mixture
from stages.prune.expert.criteria import RoutedCriterion


class Frequency(RoutedCriterion):
    def total(
        self, mixture: Mixture, tokens: torch.Tensor, weights: torch.Tensor, chosen: torch.Tensor
    ) -> torch.Tensor:
        """Return zeros: the numbers of tokens are enough."""
        return torch.zeros(mixture.experts, dtype=torch.float64)

    def worth(self, total: torch.Tensor, routed: torch.Tensor, tokens: int) -> torch.Tensor:
        """Return the share of the tokens that are sent to each expert."""
        return routed / tokens
