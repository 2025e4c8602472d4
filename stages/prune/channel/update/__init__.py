"""Updates of structure channel: what the kept weights do to make up for the removed channels. One file each."""

from abc import ABC, abstractmethod

import torch
from transformers import PreTrainedModel

from stages.prune.choices import load


class ChannelUpdate(ABC):
    """How a model's matrices are set when its stream is cut to a subspace."""

    @abstractmethod
    def project(self, model: PreTrainedModel, basis: torch.Tensor, windows: torch.Tensor) -> None:
        """Cut the residual stream x of `model` to x `basis`, in place.

        The columns of `basis`, (hidden, left), float64, are orthonormal; `windows` are the calibration tokens, shape
        (count, length).
        """


def channel_update(name: str) -> ChannelUpdate:
    """Return the update of channels called `name`."""
    return load(ChannelUpdate, name, __name__)
