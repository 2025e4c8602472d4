"""Criteria of structure expert: what an expert is worth. One file each; its name is `prune.criterion`."""

from abc import ABC, abstractmethod

import torch
from transformers import PreTrainedModel

from stages.common import processes
from stages.common.progress import progress
from stages.models.mixture import Mixture
from stages.models.parts import Parts
from stages.prune.activations import Activations
from stages.prune.choices import load
from stages.prune.params import PruneParams


class ExpertCriterion(ABC):
    """The worth of whole experts."""

    @abstractmethod
    def score(
        self, model: PreTrainedModel, layers: list[int], windows: torch.Tensor, params: PruneParams
    ) -> list[torch.Tensor]:
        """Return the worth of the experts of each of `layers`, shape (experts,), float64, on the CPU.

        `windows` are the calibration tokens, shape (count, length). All are scored on the model as it is.
        """


class RoutedCriterion(ExpertCriterion):
    """A criterion of the tokens that the router sends to an expert."""

    @abstractmethod
    def total(
        self, mixture: Mixture, tokens: torch.Tensor, weights: torch.Tensor, chosen: torch.Tensor
    ) -> torch.Tensor:
        """Return for each expert the sum over the tokens sent to it, shape (experts,), float64.

        `tokens`, (tokens, hidden), is what the mixture reads; `chosen`, (tokens, k), are the experts of each token and
        `weights`, alike, what the router multiplies their outputs by.
        """

    @abstractmethod
    def worth(self, total: torch.Tensor, routed: torch.Tensor, tokens: int) -> torch.Tensor:
        """Return the scores from the sums over all batches and the numbers of tokens `routed` to each expert."""

    @torch.no_grad()
    def score(
        self, model: PreTrainedModel, layers: list[int], windows: torch.Tensor, params: PruneParams
    ) -> list[torch.Tensor]:
        """Score layer by layer as the windows pass the model."""
        activations, scores = Activations(model, windows), []
        for layer in progress(layers, "calibration"):
            activations.go_to(layer, "mlp")
            mixture = Parts(model).mixture(activations.layers[layer])
            total, routed = torch.zeros(2, mixture.experts, dtype=torch.float64)
            for tokens, weights, chosen in activations.routes():
                total += self.total(mixture, tokens, weights, chosen).cpu()
                routed += chosen.flatten().bincount(minlength=mixture.experts).cpu()
            total, routed = processes.add_up(torch.stack([total, routed]))
            scores.append(self.worth(total, routed, processes.total(windows.numel())))
        return scores


def criterion(name: str) -> ExpertCriterion:
    """Return the criterion of experts called `name`."""
    return load(ExpertCriterion, name, __name__)
