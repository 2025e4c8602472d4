"""Llama whose layers differ in width: loads with AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True).

This file is copied into every checkpoint that needs it and depends on transformers alone. The widths of each layer are
the standard `per_layer_config` entries of config.json: num_attention_heads, num_key_value_heads, intermediate_size.
"""

from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM, LlamaModel
from transformers.models.llama.modeling_llama import LlamaDecoderLayer


class PrunedLlamaConfig(LlamaConfig):
    """LlamaConfig that allows any number of heads: head_dim is explicit, so they need not divide hidden_size."""

    model_type = "pruned_llama"

    def validate_architecture(self):
        """Accept head counts that hidden_size is no multiple of."""


class PrunedLlamaModel(LlamaModel):
    """LlamaModel that builds every layer from its own entry of `config.per_layer_config`."""

    config_class = PrunedLlamaConfig

    def __init__(self, config: PrunedLlamaConfig):
        super().__init__(config)
        self.layers = nn.ModuleList(
            LlamaDecoderLayer(layer_config, index)  # type: ignore[arg-type]
            for index, layer_config in enumerate(config.per_layer_config)
        )
        self.post_init()


class PrunedLlamaForCausalLM(LlamaForCausalLM):
    """LlamaForCausalLM on a PrunedLlamaModel."""

    config_class = PrunedLlamaConfig

    def __init__(self, config: PrunedLlamaConfig):
        super().__init__(config)
        self.model = PrunedLlamaModel(config)
        self.post_init()
