"""Uniform: every module gives the same share of its units."""

import torch

from stages.prune.units import Module

POOLED = False


def keys(modules: list[Module], scores: list[torch.Tensor], original: list[int]) -> list[torch.Tensor]:
    """Return for each unit the share of its module that is gone once it and all weaker units are removed.

    `original` holds the units that each module had before the first step.
    """
    return [
        (before - module.units + rank(score) + 1) / before
        for module, score, before in zip(modules, scores, original, strict=True)
    ]


def rank(score: torch.Tensor) -> torch.Tensor:
    """Return the 0-based rank of each unit, ties by position, as float64."""
    return score.argsort(stable=True).argsort(stable=True).double()
