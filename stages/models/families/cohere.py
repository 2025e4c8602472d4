"""Cohere (Command R, 2024): attention and MLP side by side after one LayerNorm, and logits times a factor."""

from dataclasses import replace

from stages.models.architecture import Logits, Norm
from stages.models.families import llama

FAMILY = replace(
    llama.FAMILY,
    model_class="CohereForCausalLM",
    attention=replace(llama.FAMILY.attention, query_norm="q_norm", key_norm="k_norm", unit_norms="own"),
    mlp=replace(llama.MLP, norm="input_layernorm"),
    norm=Norm(eps_key="layer_norm_eps", centred=True),
    logits=Logits(factor="logit_scale"),
    parallel=True,
    bias_keys=(),
    heads_divide_hidden_size=False,
    gguf=None,  # llama.cpp's command-r has as many query rows as hidden channels, which pruned heads do not fill
)
