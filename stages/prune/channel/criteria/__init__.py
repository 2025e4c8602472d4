"""Criteria that choose directions of the residual stream rather than channels. One file each; its name is the value."""

from abc import ABC, abstractmethod

import torch
from transformers import PreTrainedModel


class DirectionCriterion(ABC):
    """A choice of the subspace that the residual stream keeps."""

    @abstractmethod
    def basis(self, model: PreTrainedModel, windows: torch.Tensor, count: int) -> torch.Tensor:
        """Return `count` orthonormal directions of the stream, (hidden, count), float64.

        `windows` are the calibration tokens, shape (count, length). Where the head is tied to the embeddings,
        B' diag(w) B has to be diagonal, with w the weights of the last norm: see `diagonalised`.
        """


def diagonalised(basis: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Return `basis`, B, rotated within its subspace so that B' diag(weights) B is a diagonal matrix.

    The last norm's weights cannot move into a head that is tied to the embeddings. In this basis they stay weights of a
    norm, so embeddings and head stay tied.
    """
    return basis @ torch.linalg.eigh(basis.T @ (weights[:, None] * basis)).eigenvectors
