"""Criteria: what a unit is worth. One file each; its name is the value of `prune.criterion`.

A criterion of weights or gradients is a module with `score(model, modules, windows, params)`, which returns for every
module a float32 tensor of shape (matrices, units): the worth of each unit's slice of each matrix, for
`prune.grouping` to combine.

A criterion of activations is a module with `score_inputs(module, inputs)`, which returns one such tensor for one module
from the statistics of its output matrix's inputs (inputs.Inputs). When units are chosen, those statistics come
from the model as pruned so far.

The structures weight and layer have criteria of their own, in the folders of that name.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Callable
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the names are wanted where torch is not
    import torch

COMBINE: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "sum": lambda scores: scores.sum(0),
    "mean": lambda scores: scores.mean(0),
    "max": lambda scores: scores.amax(0),
    "prod": lambda scores: scores.prod(0),
    "first": lambda scores: scores[0],
}


def names(folder: str = "") -> list[str]:
    """Return the criteria there are: the files of this folder, or those that `folder` in it has for a structure."""
    return sorted(module.name for module in pkgutil.iter_modules([f"{__path__[0]}/{folder}"]) if not module.ispkg)


def load(name: str) -> ModuleType:
    """Return criterion `name`, or `folder.name`."""
    return import_module(f"{__name__}.{name}")


def reads_activations(name: str) -> bool:
    """Return whether criterion `name` scores a module from the statistics of its inputs."""
    return hasattr(load(name), "score_inputs")


def score_units(name, model, modules, windows, params) -> list[torch.Tensor]:
    """Return one float64 score per unit of every module, by criterion `name` and `params.grouping`.

    All are scored on the model as it is. Float64 because a product over matrices of tiny saliences leaves float32's
    range.
    """
    if reads_activations(name):
        from stages.prune.activations import Activations

        activations = Activations(model, windows)
        return [score_module(name, module, activations.inputs(module), params) for module in modules]
    return [COMBINE[params.grouping](each.double()) for each in load(name).score(model, modules, windows, params)]


def score_module(name, module, inputs, params) -> torch.Tensor:
    """Return one float64 score per unit of `module` from the statistics of its inputs."""
    return COMBINE[params.grouping](load(name).score_inputs(module, inputs).double()).cpu()
