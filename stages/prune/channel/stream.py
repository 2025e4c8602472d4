"""The residual stream's channels as units: the matrices that read and write them, and their removal.

Channel j is column j of the embeddings and of every matrix that reads the stream (q, k, v, gate, up, the head), row j
of every matrix that writes to it (o, down), and weight j of every norm but those of queries and keys.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from stages.common import processes
from stages.common.errors import UserError
from stages.models.half import Half
from stages.models.parts import Parts
from stages.models.prunable import Matrices, Prunable
from stages.models.surgery import keep_units
from stages.prune.activations import TOKENS_PER_PASS


def stream(model: PreTrainedModel) -> Prunable:
    """Return the hidden size of `model` as one module; its matrices begin with the embeddings."""
    matrices = matrices_of(model)
    size = sum(matrix.weight.numel() for matrix, _ in matrices)
    units, weights = Parts(model).width, len(norms(model))
    biases = sum(dim == 0 and getattr(matrix, "bias", None) is not None for matrix, dim in matrices)
    return Prunable(0, "channel", units, 1, size // units + weights + biases, matrices)


def matrices_of(model: PreTrainedModel) -> Matrices:
    """Return the matrices that the channels cross; a head tied to the embeddings is among them as those."""
    parts = Parts(model)
    matrices: list[Any] = [(parts.embeddings, 1)]  # shaped like a matrix that reads: (vocabulary, hidden)
    for layer in parts.layers:
        for half in halves_of(parts, layer):
            matrices += [*((linear, 1) for linear in half.inputs.values()), (half.output, 0)]
    head = [] if model.config.tie_word_embeddings else [(model.get_output_embeddings(), 1)]
    return (*matrices, *head)


def norms(model: PreTrainedModel) -> list[Any]:
    """Return every norm as wide as the residual stream, each once."""
    parts = Parts(model)
    every = [norm for half in halves(parts) for norm in (half.norm, half.after)]
    return [norm for norm in every if not isinstance(norm, nn.Identity)] + [parts.last_norm]


def halves(parts: Parts) -> list[Half]:
    """Return the halves of all layers, in order."""
    return [half for layer in parts.layers for half in halves_of(parts, layer)]


def halves_of(parts: Parts, layer: nn.Module) -> list[Half]:
    """Return the halves that a layer has, attention first."""
    return [half for half in (parts.attention(layer), parts.mlp(layer)) if not half.skipped]


@torch.no_grad()
def readings(
    model: PreTrainedModel, windows: torch.Tensor
) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """Yield, wherever the stream is read, the weight that reads it, and the mean and mean square of what it reads.

    The weight, (out, hidden), has the rows of all matrices that read; the moments, (hidden,) each, float64, are those
    on `windows`, tokens of shape (count, length), all from the model as it is. Raises UserError for activations that
    are not finite.
    """
    parts = Parts(model)
    groups = [list(half.inputs.values()) for half in halves(parts)]
    sums = [torch.zeros(2, parts.width, dtype=torch.float64, device=model.device) for _ in (*groups, "head")]

    def add(total: torch.Tensor, read: torch.Tensor) -> None:
        values = read.flatten(0, 1).double()
        total += torch.stack([values.sum(0), values.square().sum(0)])

    hooks = [
        group[0].register_forward_pre_hook(lambda _, args, total=total: add(total, args[0]))
        for group, total in zip(groups, sums, strict=False)
    ]
    # The head is left out of the pass: it reads what the last norm puts out.
    hooks.append(parts.last_norm.register_forward_hook(lambda _, args, output: add(sums[-1], output)))
    try:
        for batch in windows.split(max(1, TOKENS_PER_PASS // windows.shape[1])):
            model.get_decoder()(batch.to(model.device), use_cache=False)
    finally:
        for hook in hooks:
            hook.remove()
    tokens = processes.total(windows.numel())
    for group, total in zip([*groups, [model.get_output_embeddings()]], sums, strict=True):
        if not torch.isfinite(total).all():
            raise UserError("the calibration activations are not finite; the base model or its dtype is not usable")
        mean, square = processes.add_up(total) / tokens
        yield torch.cat([each.weight for each in group]), mean, square


@torch.no_grad()
def keep_channels(model: PreTrainedModel, keep: torch.Tensor) -> None:
    """Cut the channels but `keep` out of `model`, in place; it then computes what it would with them at zero.

    A norm divides by the root of the mean over all channels, sqrt(sum x^2 / hidden + eps). The mean over the kept alone
    is larger by hidden / kept where the others are zero, so the norms' weights take the root of that, and eps the same.
    The norms of queries and keys share that eps, so the matrices that they follow take the root too.
    """
    module, parts = stream(model), Parts(model)
    embeddings, keep, family = parts.embeddings, keep.to(model.device), parts.family
    grown = module.units / len(keep)
    embeddings.weight = nn.Parameter(embeddings.weight[:, keep], requires_grad=False)
    embeddings.embedding_dim = len(keep)
    for linear in matrices_of(model)[1:]:
        keep_units(Prunable(0, "channel", module.units, 1, 0, (linear,)), keep)
    # Embeddings that are multiplied by the root of the hidden size grow as that shrinks; a tied head then does as well.
    if family.embedding_scale:
        embeddings.weight.mul_(grown**0.5)
        parts.embedding_scale = len(keep) ** 0.5
    tied = bool(family.embedding_scale) and model.config.tie_word_embeddings
    for norm in norms(model):
        factor = 1.0 if tied and norm is parts.last_norm else grown**0.5
        weight = (norm.weight[keep] + family.norm.offset) * factor - family.norm.offset
        norm.weight = nn.Parameter(weight.to(norm.weight.dtype), requires_grad=False)
        grow_eps(norm, grown)
    grow_input_norms(parts, grown)
    assert family.norm.eps_key, "a family without the key has LayerNorms, which are refused before"
    setattr(model.config, family.norm.eps_key, getattr(model.config, family.norm.eps_key) * grown)
    model.config.hidden_size = len(keep)
    if model.config.tie_word_embeddings:
        head = model.get_output_embeddings()
        head.weight, head.in_features = embeddings.weight, len(keep)


def grow_eps(norm: Any, factor: float) -> None:
    """Multiply the eps of a norm by `factor`."""
    for name in ("variance_epsilon", "eps"):
        if hasattr(norm, name):
            setattr(norm, name, getattr(norm, name) * factor)


@torch.no_grad()
def grow_input_norms(parts: Parts, factor: float) -> None:
    """Let the norms of queries and keys compute what they do, with eps larger by `factor`: what they read grows too."""
    for half in halves(parts):
        for matrix, norm in half.input_norms:
            grow_eps(norm, factor)
            for parameter in matrix.parameters():
                parameter.mul_(factor**0.5)
