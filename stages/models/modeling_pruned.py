"""Llama, Mistral, Qwen2 and Qwen3 whose layers differ in width; loads with trust_remote_code where this project is not:

    AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True)

This file is copied into every checkpoint that needs it and depends on nothing but transformers and what that needs. The
widths of each layer are the standard `per_layer_config` entries of config.json: num_attention_heads,
num_key_value_heads, intermediate_size.
`output_bias: true` gives the output matrices (o_proj, down_proj) the bias that an architecture has no key for.
"""

from typing import Any

import torch
from huggingface_hub.dataclasses import strict  # what transformers checks its configs by
from torch import nn
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    LlamaModel,
    MistralConfig,
    MistralForCausalLM,
    MistralModel,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen2Model,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3Model,
)


class AnyHeads:
    """A config that allows any number of heads: head_dim is explicit, so they need not divide hidden_size."""

    def validate_architecture(self):
        """Accept head counts that hidden_size is no multiple of."""


class OwnLayers(PreTrainedModel):
    """A decoder that builds every layer from its own entry of `config.per_layer_config`."""

    layers: Any

    def __init__(self, config):
        super().__init__(config)
        layer_class = type(self.layers[0])
        self.layers = nn.ModuleList(layer_class(each, index) for index, each in enumerate(config.per_layer_config))
        if getattr(config, "output_bias", False):
            for layer in self.layers:
                for linear in (layer.self_attn.o_proj, layer.mlp.down_proj):
                    linear.bias = nn.Parameter(torch.zeros_like(linear.weight[:, 0]))
        self.post_init()


class OwnDecoder(PreTrainedModel):
    """A causal language model on the decoder `decoder_class`."""

    decoder_class: Any

    def __init__(self, config):
        super().__init__(config)
        self.model = self.decoder_class(config)
        self.post_init()


@strict
class PrunedLlamaConfig(AnyHeads, LlamaConfig):
    model_type = "pruned_llama"


class PrunedLlamaModel(OwnLayers, LlamaModel):
    config_class = PrunedLlamaConfig


class PrunedLlamaForCausalLM(OwnDecoder, LlamaForCausalLM):
    config_class, decoder_class = PrunedLlamaConfig, PrunedLlamaModel


@strict
class PrunedMistralConfig(AnyHeads, MistralConfig):
    model_type = "pruned_mistral"


class PrunedMistralModel(OwnLayers, MistralModel):
    config_class = PrunedMistralConfig


class PrunedMistralForCausalLM(OwnDecoder, MistralForCausalLM):
    config_class, decoder_class = PrunedMistralConfig, PrunedMistralModel


@strict
class PrunedQwen2Config(AnyHeads, Qwen2Config):
    model_type = "pruned_qwen2"


class PrunedQwen2Model(OwnLayers, Qwen2Model):
    config_class = PrunedQwen2Config


class PrunedQwen2ForCausalLM(OwnDecoder, Qwen2ForCausalLM):
    config_class, decoder_class = PrunedQwen2Config, PrunedQwen2Model


@strict
class PrunedQwen3Config(AnyHeads, Qwen3Config):
    model_type = "pruned_qwen3"


class PrunedQwen3Model(OwnLayers, Qwen3Model):
    config_class = PrunedQwen3Config


class PrunedQwen3ForCausalLM(OwnDecoder, Qwen3ForCausalLM):
    config_class, decoder_class = PrunedQwen3Config, PrunedQwen3Model


# By the model type of the base: its own class, and the one for layers that differ in width.
ARCHITECTURES: dict[str, tuple[Any, Any]] = {
    "llama": (LlamaForCausalLM, PrunedLlamaForCausalLM),
    "mistral": (MistralForCausalLM, PrunedMistralForCausalLM),
    "qwen2": (Qwen2ForCausalLM, PrunedQwen2ForCausalLM),
    "qwen3": (Qwen3ForCausalLM, PrunedQwen3ForCausalLM),
}
