"""What the structure weight prunes: the matrices of attention and MLP, in the order in which the windows meet them."""

from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn
from transformers import PreTrainedModel

from stages.prune.ranges import layer_range
from stages.prune.units import Kind


@dataclass(frozen=True)
class Readers:
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


def all_readers(model: PreTrainedModel, params) -> Iterator[Readers]:
    """Yield the matrices of the layers that `params` name; UserError for layers outside the model."""
    layers = len(model.model.layers)
    attention = layer_range("prune.attention_layers", params.attention_layers, layers)
    mlp = layer_range("prune.mlp_layers", params.mlp_layers, layers)
    for index, layer in enumerate(model.model.layers):
        if index in attention:
            heads = layer.self_attn
            yield Readers(index, "attention", named(heads, "q_proj", "k_proj", "v_proj"))
            yield Readers(index, "attention", named(heads, "o_proj"))
        if index in mlp:
            yield Readers(index, "mlp", named(layer.mlp, "gate_proj", "up_proj"))
            yield Readers(index, "mlp", named(layer.mlp, "down_proj"))


def named(module: nn.Module, *names: str) -> dict[str, nn.Linear]:
    """Return matrices of `module` by name."""
    return {name: getattr(module, name) for name in names}
