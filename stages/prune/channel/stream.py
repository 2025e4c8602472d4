"""The residual stream's channels as units: what crosses them, what reads them, and cutting them out.

Channel j is column j of the embeddings and of every matrix that reads the stream (q, k, v, gate, up, the head), row j
of every matrix that writes to it (o, down), and weight j of every norm but Qwen3's of queries and keys.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from stages.common.errors import UserError
from stages.models.parts import Parts
from stages.prune.activations import TOKENS_PER_PASS
from stages.prune.surgery import keep_units
from stages.prune.units import Matrices, Prunable


def stream(model: PreTrainedModel) -> Prunable:
    """Return the hidden size of `model` as one module; its matrices begin with the embeddings."""
    matrices = matrices_of(model)
    size = sum(matrix.weight.numel() for matrix, _ in matrices)
    units, weights = Parts(model).embeddings.weight.shape[1], len(norms(model))
    biases = sum(dim == 0 and getattr(matrix, "bias", None) is not None for matrix, dim in matrices)
    return Prunable(0, "channel", units, 1, size // units + weights + biases, matrices)


def matrices_of(model: PreTrainedModel) -> Matrices:
    """Return the matrices that the channels cross; a head tied to the embeddings is among them as those."""
    parts = Parts(model)
    matrices: list[Any] = [(parts.embeddings, 1)]  # shaped like a matrix that reads: (vocabulary, hidden)
    for layer in parts.layers:
        for half in (parts.attention(layer), parts.mlp(layer)):
            matrices += [*((linear, 1) for linear in half.inputs.values()), (half.output, 0)]
    head = [] if model.config.tie_word_embeddings else [(model.get_output_embeddings(), 1)]
    return (*matrices, *head)


def norms(model: PreTrainedModel) -> list[tuple[Any, list[nn.Linear]]]:
    """Return every norm of the residual stream with the matrices that read what it puts out."""
    parts, head = Parts(model), model.get_output_embeddings()
    halves = [half for layer in parts.layers for half in (parts.attention(layer), parts.mlp(layer))]
    return [*((half.norm, [*half.inputs.values()]) for half in halves), (parts.last_norm, [head])]


@torch.no_grad()
def norm_outputs(
    model: PreTrainedModel, windows: torch.Tensor
) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """Yield for every norm of the stream the weight that reads it, and the mean and the mean square of its channels.

    The weight, (out, hidden), has the rows of all matrices that read; the moments, (hidden,) each, float64, are those
    on `windows`, tokens of shape (count, length), all from the model as it is. Raises UserError for activations that
    are not finite.
    """
    pairs = norms(model)
    sums = [torch.zeros(2, model.config.hidden_size, dtype=torch.float64, device=model.device) for _ in pairs]

    def add(total: torch.Tensor, output: torch.Tensor) -> None:
        values = output.flatten(0, 1).double()
        total += torch.stack([values.sum(0), values.square().sum(0)])

    hooks = [
        norm.register_forward_hook(lambda _, args, output, total=total: add(total, output))
        for (norm, _), total in zip(pairs, sums, strict=True)
    ]
    try:
        for batch in windows.split(max(1, TOKENS_PER_PASS // windows.shape[1])):
            model.get_decoder()(batch.to(model.device), use_cache=False)
    finally:
        for hook in hooks:
            hook.remove()
    for (_, matrices), total in zip(pairs, sums, strict=True):
        if not torch.isfinite(total).all():
            raise UserError("the calibration activations are not finite; the base model or its dtype is not usable")
        mean, square = total / windows.numel()
        yield torch.cat([each.weight for each in matrices]), mean, square


@torch.no_grad()
def keep_channels(model: PreTrainedModel, keep: torch.Tensor) -> None:
    """Cut the channels but `keep` out of `model`, in place; it then computes what it would with them at zero.

    A norm divides by the root of the mean over all channels, sqrt(sum x^2 / hidden + eps). The mean over the kept alone
    is larger by hidden / kept where the others are zero, so the norms' weights take the root of that, and eps the same.
    """
    module = stream(model)
    embeddings, keep = Parts(model).embeddings, keep.to(model.device)
    grown = module.units / len(keep)
    embeddings.weight = nn.Parameter(embeddings.weight[:, keep], requires_grad=False)
    embeddings.embedding_dim = len(keep)
    for linear in matrices_of(model)[1:]:
        keep_units(Prunable(0, "channel", module.units, 1, 0, (linear,)), keep)
    for norm, _ in norms(model):
        norm.weight = nn.Parameter((norm.weight[keep] * grown**0.5).to(norm.weight.dtype), requires_grad=False)
        norm.variance_epsilon *= grown
    model.config.rms_norm_eps *= grown
    model.config.hidden_size = len(keep)
    if model.config.tie_word_embeddings:
        head = model.get_output_embeddings()
        head.weight, head.in_features = embeddings.weight, len(keep)
