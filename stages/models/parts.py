"""The parts of a model in memory, found by its family's description."""

from dataclasses import dataclass
from typing import Any

import transformers
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from stages.models import modeling_pruned
from stages.models.architecture import Architecture, Attention, Mlp
from stages.models.families import FAMILIES

PRUNED = "pruned_"  # before the model type of a model whose layers differ


@dataclass(frozen=True)
class Half:
    """A layer's attention or its MLP: what reads the residual stream after a norm, and what writes to it."""

    module: Any  # torch types what a module holds as Tensor | Module, whatever it is
    norm: Any
    inputs: dict[str, nn.Linear]  # what reads, by name
    units: list[nn.Linear]  # the same, first the one whose rows count the units
    output: nn.Linear
    output_name: str


def half(layer: nn.Module, names: Attention | Mlp) -> Half:
    """Return the half of `layer` that has these names."""
    module = layer.get_submodule(names.module)
    linears: dict[str, Any] = {name: module.get_submodule(name) for name in (*names.inputs, names.output)}
    inputs = {name: linears[name] for name in names.inputs}
    units = [linears[name] for name in names.units]
    return Half(module, layer.get_submodule(names.norm), inputs, units, linears[names.output], names.output)


class Parts:
    """The parts of one model."""

    def __init__(self, model: PreTrainedModel):
        """Look into `model`."""
        self.model, self.family = model, family_of(model.config)

    @property
    def layers(self) -> Any:
        """The decoder layers, a ModuleList."""
        return self.model.get_submodule(self.family.layers)

    @layers.setter
    def layers(self, layers: list[nn.Module]) -> None:
        """Put other layers in their place."""
        self.model.set_submodule(self.family.layers, nn.ModuleList(layers))

    @property
    def last_norm(self) -> Any:
        """The norm before the head."""
        return self.model.get_submodule(self.family.last_norm)

    @property
    def embeddings(self) -> Any:
        """The embeddings of tokens."""
        return self.model.get_submodule(self.family.embeddings)

    @property
    def rotary(self) -> Any:
        """The rotary embedding, whose buffers are not in the state dict."""
        return self.model.get_submodule(self.family.rotary)

    @rotary.setter
    def rotary(self, module: nn.Module) -> None:
        """Put another in its place."""
        self.model.set_submodule(self.family.rotary, module)

    @property
    def head_dim(self) -> int:
        """The size of an attention head."""
        return self.attention(self.layers[0]).module.head_dim

    def attention(self, layer: nn.Module) -> Half:
        """Return the attention of a decoder layer."""
        return half(layer, self.family.attention)

    def mlp(self, layer: nn.Module) -> Half:
        """Return the MLP of a decoder layer."""
        return half(layer, self.family.mlp)

    @property
    def widths(self) -> list[dict[str, int]]:
        """The widths of every layer, read from its weights and keyed as in config.json."""
        names, head_dim = self.family.attention, self.head_dim
        pairs = [(self.attention(layer), self.mlp(layer)) for layer in self.layers]
        return [
            {
                "num_attention_heads": attention.inputs[names.query].out_features // head_dim,
                "num_key_value_heads": attention.inputs[names.key].out_features // head_dim,
                "intermediate_size": mlp.output.in_features,
            }
            for attention, mlp in pairs
        ]


def family_of(config: PreTrainedConfig) -> Architecture:
    """Return the family of a model's config, that of a pruned class too."""
    return FAMILIES[config.model_type.removeprefix(PRUNED)]


def plain_class(family: Architecture) -> Any:
    """Return the family's class of transformers, whose layers are alike."""
    return getattr(transformers, family.model_class)


def pruned_class(family: Architecture) -> Any:
    """Return the family's class for layers that differ in width."""
    return getattr(modeling_pruned, f"Pruned{family.model_class}")
