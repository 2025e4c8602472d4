"""OPT (Zhang et al. 2022): learned positions, LayerNorms, biases, and an MLP without a gate or a module."""

from stages.models.architecture import Architecture, Attention, Mlp, Norm

FAMILY = Architecture(
    model_class="OPTForCausalLM",
    embeddings="model.decoder.embed_tokens",
    layers="model.decoder.layers",
    last_norm="model.decoder.final_layer_norm",
    rotary=None,
    head="lm_head",
    attention=Attention(
        "self_attn",
        norm="self_attn_layer_norm",
        query="q_proj",
        key="k_proj",
        value="v_proj",
        output="out_proj",
        query_counts=("num_heads",),
    ),
    mlp=Mlp(
        "",
        norm="final_layer_norm",
        gate=None,
        up="fc1",
        output="fc2",
        activation="activation_fn",
        width_key="ffn_dim",
    ),
    norm=Norm(eps_key=None, centred=True),
    activation_key="activation_function",
    positions="model.decoder.embed_positions",
    needed=(  # OPT-350m alone has others: norms after each half, and narrower embeddings with a projection
        ("do_layer_norm_before", True),
        ("_remove_final_layer_norm", False),
        ("layer_norm_elementwise_affine", True),
        ("word_embed_proj_dim", "=hidden_size"),
    ),
    bias_keys=("enable_bias",),
    heads_divide_hidden_size=True,
    heads_fill_hidden_size=True,
    gguf=None,  # llama.cpp has no architecture for it
)
