"""None: the matrices are those of the dense model, projected."""

import torch
from transformers import PreTrainedModel

from stages.models.parts import Parts
from stages.prune.channel.projection import cut_norm, project_ends, project_writing, read_through
from stages.prune.channel.stream import halves
from stages.prune.channel.update import ChannelUpdate


class NoUpdate(ChannelUpdate):
    def project(self, model: PreTrainedModel, basis: torch.Tensor, windows: torch.Tensor) -> None:
        """Change nothing but the coordinates."""
        parts = Parts(model)
        offset = parts.family.norm.offset
        for half in halves(parts):
            factor = cut_norm(half.norm, basis, offset)
            for linear in half.inputs.values():
                read_through(linear, factor)
            project_writing(half, basis)
        project_ends(model, basis, cut_norm(parts.last_norm, basis, offset))
