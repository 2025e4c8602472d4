"""Llama (Touvron et al. 2023): grouped-query attention and a gated MLP, each after a norm."""

from stages.models.architecture import Architecture, Attention, Mlp

MLP = Mlp("mlp", norm="post_attention_layernorm", gate="gate_proj", up="up_proj", output="down_proj")
FAMILY = Architecture(
    model_class="LlamaForCausalLM",
    embeddings="model.embed_tokens",
    layers="model.layers",
    last_norm="model.norm",
    rotary="model.rotary_emb",
    head="lm_head",
    attention=Attention(
        "self_attn", norm="input_layernorm", query="q_proj", key="k_proj", value="v_proj", output="o_proj"
    ),
    mlp=MLP,
    bias_keys=("attention_bias", "mlp_bias"),
    heads_divide_hidden_size=True,
    gguf="llama",
)
