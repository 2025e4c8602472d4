"""Realign: least squares towards the dense model, one matrix after another, in the stream as cut so far.

As in structure block (the asymmetric calibration of GPTAQ, Li et al. 2025). With x the dense model's stream, s the cut
model's, and B the basis of the subspace: the matrices that read the stream are to put out on s what they did on x. All
that read in one place are multiplied by F = (D'X + diag(w) B S) (X'X + S)^-1, where D and X are the norm's outputs on x
and s, w its weights, and S the damping, each column's own mean square; diag(w) B alone would be the cut. The matrix
that writes to the stream is to put out x B - s, damped likewise. A head with weights of its own is one that reads; for
a head tied to the embeddings the last norm is solved for, each weight for its channel.
"""

import torch
from transformers import PreTrainedModel

from stages.models.half import Half
from stages.models.prunable import Kind
from stages.prune.activations import Activations
from stages.prune.channel.projection import cut_norm, project_ends, project_writing, read_through
from stages.prune.channel.update import ChannelUpdate
from stages.prune.drift import fit_norm
from stages.prune.inputs import damping_towards_dense, products

KINDS: tuple[Kind, Kind] = ("attention", "mlp")


class Realign(ChannelUpdate):
    @torch.no_grad()
    def project(self, model: PreTrainedModel, basis: torch.Tensor, windows: torch.Tensor) -> None:
        """Cut and solve for half a layer at a time, while the windows pass the dense model and the cut one."""
        here = Activations(model, windows, with_targets=True)
        here.hidden = within(here.hidden, basis)
        for layer in range(len(here.layers)):
            for kind in KINDS:
                here.go_to(layer, kind)
                realign_half(here, basis)
        here.go_to(len(here.layers))
        realign_ends(here, model, basis)


def realign_half(here: Activations, basis: torch.Tensor) -> None:
    """Cut the half that the windows are at, and solve for its matrices."""
    half = here.half
    assert isinstance(half, Half), "mixtures of experts are refused before"
    if half.skipped:
        return
    dense = list(here.normed(here.reference))
    factor = cut_norm(half.norm, basis, here.parts.family.norm.offset)
    factor = solution(dense, list(here.normed(here.hidden)), factor)
    for linear in half.inputs.values():
        read_through(linear, factor)
    project_writing(half, basis)
    bias = 0 if half.output.bias is None else half.output.bias
    streams = zip(within(here.targets, basis), here.hidden, strict=True)
    wanted = [(x - s) / half.scale - bias for x, s in streams]
    output = half.output.weight
    output.copy_(solution(wanted, here.read_by_output(), output.double()))


def realign_ends(here: Activations, model: PreTrainedModel, basis: torch.Tensor) -> None:
    """Cut the embeddings, the last norm and the head, and solve for a head of its own weights, or for the norm."""
    norm, offset = here.last_norm, here.parts.family.norm.offset
    dense = list(here.normed(here.reference))
    factor = cut_norm(norm, basis, offset)
    if not model.config.tie_word_embeddings:
        project_ends(model, basis, solution(dense, list(here.normed(here.hidden)), factor))
        return
    project_ends(model, basis, factor)
    batches = zip(here.normed(here.hidden), within(dense, basis), strict=True)
    fit_norm(norm, offset, [(x.flatten(0, 1).double(), y.flatten(0, 1).double()) for x, y in batches])


def within(streams: list[torch.Tensor], basis: torch.Tensor) -> list[torch.Tensor]:
    """Return x B for every batch x of a stream."""
    return [x @ basis.to(x.dtype) for x in streams]


def solution(wanted: list[torch.Tensor], read: list[torch.Tensor], start: torch.Tensor) -> torch.Tensor:
    """Return the W, (out, in), that solves W (X'X + S) = T'X + `start` S, with T in `wanted` and X in `read`."""
    square, cross = products(read, read), products(wanted, read)
    strength = damping_towards_dense(square)
    square.diagonal().add_(strength)
    return torch.cholesky_solve((cross + start * strength).T, torch.linalg.cholesky(square)).T
