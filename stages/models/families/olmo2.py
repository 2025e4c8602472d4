"""OLMo 2 (OLMo team 2024): Llama's matrices, with norms after attention and MLP, and of all queries and all keys."""

from dataclasses import replace

from stages.models.families import llama

FAMILY = replace(
    llama.FAMILY,
    model_class="Olmo2ForCausalLM",
    attention=replace(
        llama.FAMILY.attention,
        norm=None,
        query_norm="q_norm",
        key_norm="k_norm",
        unit_norms="together",
        after="post_attention_layernorm",
    ),
    mlp=replace(llama.MLP, norm=None, after="post_feedforward_layernorm"),
    bias_keys=(),
    heads_divide_hidden_size=False,
    gguf=None,  # llama.cpp's olmo2 has as many query rows as hidden channels, which pruned heads do not fill
)
