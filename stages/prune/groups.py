"""The matrices that structures weight and rank prune: those of attention and MLP, in the order of the forward pass."""

from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn
from transformers import PreTrainedModel

from stages.models.half import Half
from stages.models.parts import Parts
from stages.models.prunable import Kind
from stages.prune.params import PruneParams
from stages.prune.ranges import pruned_layers


@dataclass(frozen=True)
class InputGroup:
    """The matrices of one layer that read the same inputs, by name."""

    layer: int
    kind: Kind
    matrices: dict[str, nn.Linear]

    @property
    def name(self) -> str:
        """The name in messages."""
        return f"layer {self.layer} {', '.join(self.matrices)}"

    @property
    def output(self) -> nn.Linear:
        """The matrix whose inputs stand for those of all."""
        return next(iter(self.matrices.values()))


def input_groups(model: PreTrainedModel, params: PruneParams) -> Iterator[InputGroup]:
    """Yield the matrices of the layers that `params` name; UserError for layers outside the model."""
    parts = Parts(model)
    attention, mlp = pruned_layers(params, len(parts.layers))
    for index, layer in enumerate(parts.layers):
        if index in attention:
            yield from groups_of(index, "attention", parts.attention(layer))
        if index in mlp:
            yield from groups_of(index, "mlp", parts.mlp(layer))


def groups_of(layer: int, kind: Kind, half: Half) -> Iterator[InputGroup]:
    """Yield what reads the residual stream, and what writes to it, unless the layer lacks the half."""
    if half.skipped:
        return
    yield InputGroup(layer, kind, half.inputs)
    yield InputGroup(layer, kind, {half.output_name: half.output})
