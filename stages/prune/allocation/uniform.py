"""Uniform: every module gives the same share of its units."""

import torch

POOLED = False


def keys(task) -> list[torch.Tensor]:
    """Return for each unit the share of its module that is gone once it and all before it are removed."""
    return shares(task)


def shares(task) -> list[torch.Tensor]:
    """Return per module the share of its original units that is gone after its first, second, ... removal."""
    return [
        torch.arange(old.units - new.units + 1, old.units + 1, dtype=torch.float64) / old.units
        for old, new in zip(task.original, task.modules, strict=True)
    ]
