"""Qwen2 (Yang et al. 2024): Llama's parts, with biases of queries, keys and values alone."""

from dataclasses import replace

from stages.models.families import llama

FAMILY = replace(
    llama.FAMILY,
    model_class="Qwen2ForCausalLM",
    bias_keys=(),
    heads_divide_hidden_size=False,
    layer_keys=("layer_types",),
)
