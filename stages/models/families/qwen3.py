"""Qwen3 (Yang et al. 2025): Llama's parts, with norms over the queries and keys of each head."""

from dataclasses import replace

from stages.models.families import llama

FAMILY = replace(
    llama.FAMILY,
    model_class="Qwen3ForCausalLM",
    attention=replace(llama.FAMILY.attention, query_norm="q_norm", key_norm="k_norm"),
    bias_keys=(),
    heads_divide_hidden_size=False,
    layer_keys=("layer_types",),
    gguf="qwen3",
)
