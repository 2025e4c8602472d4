"""Criteria: what a unit is worth. One file each; its name is the value of `prune.criterion`.

A criterion is a module with `score(model, modules, windows, params)`, which returns for every module a float32 tensor
of shape (matrices, units): the worth of each unit's slice of each matrix. `prune.grouping` then combines the matrices.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Callable
from importlib import import_module
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


def names() -> list[str]:
    """Return the criteria there are: the files of this folder."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def score_units(name, model, modules, windows, params) -> list[torch.Tensor]:
    """Return one float64 score per unit of every module, by criterion `name` and `params.grouping`.

    Float64 because a product over matrices of tiny saliences leaves float32's range.
    """
    scores = import_module(f"{__name__}.{name}").score(model, modules, windows, params)
    return [COMBINE[params.grouping](each.double()) for each in scores]
