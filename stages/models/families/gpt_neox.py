"""GPT-NeoX (Black et al. 2022; Pythia): attention and MLP side by side, one matrix for queries, keys and values."""

from stages.models.architecture import Architecture, Attention, Mlp, Norm

FAMILY = Architecture(
    model_class="GPTNeoXForCausalLM",
    embeddings="gpt_neox.embed_in",
    layers="gpt_neox.layers",
    last_norm="gpt_neox.final_layer_norm",
    rotary="gpt_neox.rotary_emb",
    head="lm_head",
    attention=Attention(
        "attention",
        norm="input_layernorm",
        query="query_key_value",
        key="query_key_value",
        value="query_key_value",
        output="dense",
        head_dim="head_size",
    ),
    mlp=Mlp("mlp", norm="post_attention_layernorm", gate=None, up="dense_h_to_4h", output="dense_4h_to_h"),
    norm=Norm(eps_key="layer_norm_eps", centred=True),
    parallel="use_parallel_residual",
    biased=True,
    saved_head="embed_out",
    heads_divide_hidden_size=True,
    heads_fill_hidden_size=True,
    gguf=None,  # llama.cpp's gptneox has as many query rows as hidden channels, which pruned heads do not fill
)
