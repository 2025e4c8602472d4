"""Phi-3 and Phi-4 (Abdin et al. 2024): Llama's parts, one matrix for queries, keys and values, one for gate and up.

Part of each head may go without rotary embedding.
"""

from dataclasses import replace

from stages.models.families import llama

FAMILY = replace(
    llama.FAMILY,
    model_class="Phi3ForCausalLM",
    attention=replace(
        llama.FAMILY.attention,
        query="qkv_proj",
        key="qkv_proj",
        value="qkv_proj",
        stacked=True,
        query_counts=("config.num_attention_heads",),
        key_counts=("num_key_value_heads",),
    ),
    mlp=replace(llama.MLP, gate="gate_up_proj", up="gate_up_proj"),
    bias_keys=(),
    heads_divide_hidden_size=False,
    heads_set_longrope=True,
    gguf=None,
)
