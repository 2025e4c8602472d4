"""Magnitude: small weights go (Han et al. 2015, section 3): |W_ij|."""

import torch

from stages.prune.inputs import Inputs

READS = False


def score(weight: torch.Tensor, inputs: Inputs, columns: slice) -> torch.Tensor:
    """Return |W_ij|."""
    return weight.abs()
