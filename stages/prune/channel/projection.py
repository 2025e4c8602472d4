"""Cut the residual stream to a subspace: x becomes x B, where the columns of B, (hidden, left), are orthonormal.

A matrix that reads the stream becomes W diag(w) B, with w the weights of the norm before it; one that writes to it
becomes B' W. Norms without weights commute with rotations, so with as many columns as channels the model computes what
it did (SliceGPT, Ashkboos et al. 2024). With fewer, what is outside the subspace is set to zero: a norm divides by the
root of the mean over fewer channels, so its weights are the root of hidden / left, and eps grows by that factor, as
when channels are removed.
"""

from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from stages.models.half import Half
from stages.models.parts import Parts
from stages.prune.channel.stream import grow_eps, grow_input_norms

ROWS = 8192  # of a matrix that are multiplied in float64 at a time


@torch.no_grad()
def cut_norm(norm: Any, basis: torch.Tensor, offset: float) -> torch.Tensor:
    """Give a norm of the stream one weight for all columns of `basis`, and the eps that goes with fewer channels.

    The norm multiplies by `offset` and its weights. Returns diag(w) B, by which what reads its output is multiplied.
    """
    weights, grown = norm.weight.double() + offset, basis.shape[0] / basis.shape[1]
    norm.weight = nn.Parameter(norm.weight.new_full((basis.shape[1],), grown**0.5 - offset), requires_grad=False)
    grow_eps(norm, grown)
    return weights[:, None] * basis


@torch.no_grad()
def read_through(linear: nn.Linear, factor: torch.Tensor) -> None:
    """Multiply a matrix that reads the stream by `factor`, (hidden, left)."""
    linear.weight = nn.Parameter(product(linear.weight, factor), requires_grad=False)
    linear.in_features = factor.shape[1]


@torch.no_grad()
def project_writing(half: Half, basis: torch.Tensor) -> None:
    """Let the matrix that writes to the stream write B' of what it did."""
    output = half.output
    output.weight = nn.Parameter(product(output.weight.T, basis).T.contiguous(), requires_grad=False)
    output.out_features = basis.shape[1]
    if output.bias is not None:
        output.bias = nn.Parameter(product(output.bias[None], basis)[0], requires_grad=False)


@torch.no_grad()
def project_ends(model: PreTrainedModel, basis: torch.Tensor, factor: torch.Tensor) -> None:
    """Project the embeddings and the head; the halves and the last norm have been cut before.

    A head with weights of its own is multiplied by `factor`, which `cut_norm` returns for the last norm. A head tied to
    the embeddings is multiplied by B, so it needs B' diag(w) x: the last norm takes the diagonal of B' diag(w) B, which
    is all of it if B comes from `diagonalised`.
    """
    parts = Parts(model)
    embeddings, norm, head = parts.embeddings, parts.last_norm, model.get_output_embeddings()
    embeddings.weight = nn.Parameter(product(embeddings.weight, basis), requires_grad=False)
    embeddings.embedding_dim = basis.shape[1]
    if model.config.tie_word_embeddings:
        offset = parts.family.norm.offset
        norm.weight.copy_((norm.weight.double() + offset) * (basis * factor).sum(0) - offset)
        head.weight, head.in_features = embeddings.weight, basis.shape[1]
    else:
        read_through(head, factor)
    grown = basis.shape[0] / basis.shape[1]
    grow_input_norms(parts, grown)
    key: Any = parts.family.norm.eps_key
    setattr(model.config, key, getattr(model.config, key) * grown)
    model.config.hidden_size = basis.shape[1]


def product(weight: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    """Return weight @ factor, computed in float64, in the dtype of `weight`."""
    return torch.cat([(rows.double() @ factor).to(weight.dtype) for rows in weight.split(ROWS)])
