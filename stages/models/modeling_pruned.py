"""Models whose layers differ in width or rank; loads with trust_remote_code where this project is not installed:

    AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True)

This file is copied into every checkpoint that needs it and depends on nothing but transformers and what that needs. The
widths of each layer are the standard `per_layer_config` entries of config.json: num_attention_heads,
num_key_value_heads, intermediate_size.
`head_matrices` names the attention's matrices, and the dimension that heads lie along, of an architecture whose heads
fill the hidden size: a layer is built with so many heads, and then cut down to its own; `head_counts` names the
attributes of its modules that say how many there are.
`output_bias` lists matrices, by their names in a layer, that have a bias which the architecture has no key for.
`skip`, the standard entry of a layer for what it lacks, lists attention, mlp or both; `skipped_modules` names what goes
with each: the module, then its norms. Such a layer has no weights for them, and no keys and values in the cache.
`ranks` has an entry for each layer: the matrices, by their names in the layer, that are products of two thin ones, and
the rows, the rank and the columns of each product.

The classes are named after those that they extend: PrunedLlamaForCausalLM, PrunedQwen3Config. They are made when first
asked for, alike for every architecture.
"""

from copy import deepcopy
from functools import cache
from typing import Any

import torch
import transformers
from huggingface_hub.dataclasses import strict  # what transformers checks its configs by
from torch import nn
from transformers import PreTrainedModel


class AnyHeads:
    """A config that allows any number of heads: head_dim is explicit, so they need not divide hidden_size."""

    def validate_architecture(self):
        """Accept head counts that hidden_size is no multiple of."""

    def validate_rope(self):
        """Check what all architectures share: Phi-3 takes hidden_size / heads for the size of a head."""
        transformers.PreTrainedConfig.validate_rope(self)  # type: ignore[arg-type] # the classes below are configs

    @property
    def kv_sharing_modes(self):
        """Let transformers' caches keep nothing for layers without attention, as for those that share another's."""
        skips = ["attention" in getattr(each, "skip", []) for each in self.per_layer_config]  # type: ignore[attr-defined]
        return ["reuse" if skipped else None for skipped in skips] if any(skips) else None


class Skipped(nn.Module):
    """Stands for an attention or an MLP that is gone: adds nothing to the residual stream."""

    def __init__(self, kind):
        super().__init__()
        self.kind = kind

    def forward(self, hidden_states, *args, **kwargs):
        """Return zeros, with no attention weights beside them where it stands for an attention."""
        nothing = torch.zeros_like(hidden_states)
        return (nothing, None) if self.kind == "attention" else nothing


def skip(layer, kind, names):
    """Take the attention or MLP of `layer` out: the module, the first of `names`, and its norms, the others."""
    module, *norms = names
    layer.set_submodule(module, Skipped(kind))
    for norm in norms:
        layer.set_submodule(norm, nn.Identity())


class LowRank(nn.Sequential):
    """A matrix as the product of two thin ones: inputs pass `right`, (rank, in), then `left`, (out, rank)."""

    def __init__(self, out_features, rank, in_features, bias):
        super().__init__()
        self.right = nn.Linear(in_features, rank, bias=False)
        self.left = nn.Linear(rank, out_features, bias=bias)

    @property
    def in_features(self):
        """The number of columns of the product."""
        return self.right.in_features

    @property
    def out_features(self):
        """The number of rows of the product."""
        return self.left.out_features


class OwnLayers(PreTrainedModel):
    """A decoder that builds every layer from its own entry of `config.per_layer_config`."""

    def __init__(self, config):
        super().__init__(config)
        decoder = self.get_decoder()  # itself, or what OPT's holds
        layer_class = type(decoder.layers[0])
        decoder.layers = nn.ModuleList(
            self.own_layer(layer_class, each, i) for i, each in enumerate(config.per_layer_config)
        )
        for layer in decoder.layers:
            for name in getattr(config, "output_bias", []):
                if not isinstance(layer.get_submodule(name.rpartition(".")[0]), Skipped):
                    linear = layer.get_submodule(name)
                    linear.bias = nn.Parameter(torch.zeros_like(linear.weight[:, 0]))
        for layer, ranks in zip(decoder.layers, getattr(config, "ranks", None) or [], strict=False):
            for name, (out, rank, width) in ranks.items():
                bias = layer.get_submodule(name).bias is not None
                layer.set_submodule(name, LowRank(out, rank, width, bias))
        self.post_init()

    @classmethod
    def own_layer(cls, layer_class, config, index):
        """Return layer `index` with the widths of its own `config`, and without what that skips."""
        layer = cls.wide_layer(layer_class, config, index)
        for kind in getattr(config, "skip", []):
            skip(layer, kind, config.skipped_modules[kind])
        return layer

    @staticmethod
    def wide_layer(layer_class, config, index):
        """Return layer `index` with the widths of its own `config`."""
        matrices = getattr(config, "head_matrices", None)
        if not matrices:
            return layer_class(config, index)
        heads, full = config.num_attention_heads, config.hidden_size // config.head_dim
        config = deepcopy(config)
        config.num_attention_heads = full
        layer = layer_class(config, index)
        for name, dim in matrices.items():
            old = layer.get_submodule(name)
            sizes = [old.out_features, old.in_features]
            sizes[dim] = sizes[dim] // full * heads
            layer.set_submodule(name, nn.Linear(sizes[1], sizes[0], bias=old.bias is not None))
        for name in getattr(config, "head_counts", []):
            module, _, attribute = name.rpartition(".")
            setattr(layer.get_submodule(module), attribute, heads)
        return layer


class OwnDecoder(PreTrainedModel):
    """A causal language model on the decoder `decoder_class`."""

    decoder_class: Any

    def __init__(self, config):
        super().__init__(config)
        setattr(self, self.base_model_prefix, self.decoder_class(config))
        self.post_init()


@cache
def classes(config: Any) -> dict[str, Any]:
    """Return the classes for the architecture that `config` is the class of the config of, by name."""
    decoder: Any = transformers.MODEL_MAPPING[config]
    causal: Any = transformers.MODEL_FOR_CAUSAL_LM_MAPPING[config]
    here = {"__module__": __name__}
    settings = here | {"model_type": f"pruned_{config.model_type}"}
    own_config: Any = strict(type(f"Pruned{config.__name__}", (AnyHeads, config), settings))
    here["config_class"] = own_config
    own_decoder = type(f"Pruned{decoder.__name__}", (OwnLayers, decoder), here)
    own_causal = type(f"Pruned{causal.__name__}", (OwnDecoder, causal), here | {"decoder_class": own_decoder})
    return {each.__name__: each for each in (own_config, own_decoder, own_causal)}


def __getattr__(name: str) -> Any:
    """Return the class called `name`."""
    plain = getattr(transformers, name.removeprefix("Pruned"), None) if name.startswith("Pruned") else None
    config = getattr(plain, "config_class", None) or (plain if name.endswith("Config") else None)
    if config is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return classes(config)[name]
