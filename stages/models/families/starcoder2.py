"""StarCoder2 (Lozhkov et al. 2024): LayerNorms, biases of all matrices, and an MLP without a gate."""

from dataclasses import replace

from stages.models.architecture import Mlp, Norm
from stages.models.families import llama

FAMILY = replace(
    llama.FAMILY,
    model_class="Starcoder2ForCausalLM",
    mlp=Mlp("mlp", norm="post_attention_layernorm", gate=None, up="c_fc", output="c_proj"),
    norm=Norm(eps_key="norm_epsilon", centred=True),
    bias_keys=("use_bias",),
    heads_divide_hidden_size=False,
    gguf=None,  # llama.cpp's starcoder2 has as many query rows as hidden channels, which pruned heads do not fill
)
