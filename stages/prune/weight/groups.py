"""What structure weight prunes: the matrices of attention and MLP, in the order in which the windows meet them."""

from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn
from transformers import PreTrainedModel

from stages.prune.params import PruneParams
from stages.prune.ranges import pruned_layers
from stages.prune.units import Kind


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
    attention, mlp = pruned_layers(params, len(model.model.layers))
    for index, layer in enumerate(model.model.layers):
        if index in attention:
            heads = layer.self_attn
            yield InputGroup(index, "attention", named(heads, "q_proj", "k_proj", "v_proj"))
            yield InputGroup(index, "attention", named(heads, "o_proj"))
        if index in mlp:
            yield InputGroup(index, "mlp", named(layer.mlp, "gate_proj", "up_proj"))
            yield InputGroup(index, "mlp", named(layer.mlp, "down_proj"))


def named(module: nn.Module, *names: str) -> dict[str, nn.Linear]:
    """Return matrices of `module` by name."""
    return {name: getattr(module, name) for name in names}
