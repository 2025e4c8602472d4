"""Criteria: what a unit is worth. One file each; its name is the value of `prune.criterion`.

Structures block and channel take those of this folder. Block has more in its own, as weight and layer have theirs.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from transformers import PreTrainedModel

from stages.models.paging import each_in_memory
from stages.models.prunable import Prunable
from stages.prune.activations import Activations
from stages.prune.choices import load
from stages.prune.inputs import Inputs
from stages.prune.params import PruneParams

COMBINE: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "sum": lambda scores: scores.sum(0),
    "mean": lambda scores: scores.mean(0),
    "max": lambda scores: scores.amax(0),
    "prod": lambda scores: scores.prod(0),
    "first": lambda scores: scores[0],
}


class Criterion(ABC):
    """The worth of each unit's slice of each matrix, for `prune.grouping` to combine."""

    @abstractmethod
    def score(
        self, model: PreTrainedModel, modules: list[Prunable], windows: torch.Tensor, params: PruneParams
    ) -> list[torch.Tensor]:
        """Return for every module a tensor of shape (matrices, units), all scored on the model as it is.

        `windows` are the calibration tokens, shape (count, length).
        """


class WeightCriterion(Criterion):
    """A criterion that looks at one matrix at a time."""

    @abstractmethod
    def score_matrix(self, weight: torch.Tensor, units: int, dim: int) -> torch.Tensor:
        """Return the worth of each unit's slice of a matrix, shape (units,), float32; the units lie along `dim`."""

    def score(
        self, model: PreTrainedModel, modules: list[Prunable], windows: torch.Tensor, params: PruneParams
    ) -> list[torch.Tensor]:
        """Score matrix by matrix."""
        return [
            torch.stack(
                [
                    self.score_matrix(module.by_unit(linear.weight, dim), module.units, dim)
                    for linear, dim in module.matrices
                ]
            )
            for module in each_in_memory(model, modules)
        ]


class ActivationCriterion(Criterion):
    """A criterion of what a module's output matrix reads; where units are chosen, in the model as pruned so far."""

    @abstractmethod
    def score_inputs(self, module: Prunable, inputs: Inputs) -> torch.Tensor:
        """Return the worth of each unit of one module from the statistics of its inputs, shape (1, units)."""

    def score(
        self, model: PreTrainedModel, modules: list[Prunable], windows: torch.Tensor, params: PruneParams
    ) -> list[torch.Tensor]:
        """Score module by module as the windows pass the whole model."""
        activations = Activations(model, windows)
        return [self.score_inputs(module, activations.inputs(module)) for module in modules]


class MomentCriterion(ActivationCriterion):
    """A criterion that of those statistics needs the moments alone."""

    @abstractmethod
    def score_moments(self, weight: torch.Tensor, mean: torch.Tensor, square: torch.Tensor, units: int) -> torch.Tensor:
        """Return the worth of each unit, shape (1, units), float64.

        `weight`, (out, in), reads columns of that `mean` and mean `square`, (in,) each; a unit is in/units columns.
        """

    def score_inputs(self, module: Prunable, inputs: Inputs) -> torch.Tensor:
        """Score the columns of the module's output matrix."""
        return self.score_moments(inputs.linear.weight, *inputs.moments, module.units)


def criterion(name: str) -> Criterion:
    """Return the criterion of units called `name`."""
    return load(Criterion, name, "stages.prune.criteria", "stages.prune.block.criteria")


def combined(scores: torch.Tensor, params: PruneParams) -> torch.Tensor:
    """Return one float64 score per unit: a product over matrices of tiny saliences leaves float32's range."""
    return COMBINE[params.grouping](scores.double()).cpu()


def score_units(
    name: str, model: PreTrainedModel, modules: list[Prunable], windows: torch.Tensor, params: PruneParams
) -> list[torch.Tensor]:
    """Return one float64 score per unit of every module, by criterion `name`, all scored on the model as it is."""
    return [combined(each, params) for each in criterion(name).score(model, modules, windows, params)]
