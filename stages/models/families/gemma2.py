"""Gemma 2 (2024): norms before and after attention and MLP, soft caps, and windows in every other layer."""

from dataclasses import replace

from stages.models.architecture import Logits, Norm
from stages.models.families import llama

FAMILY = replace(
    llama.FAMILY,
    model_class="Gemma2ForCausalLM",
    attention=replace(llama.FAMILY.attention, after="post_attention_layernorm"),
    mlp=replace(llama.MLP, norm="pre_feedforward_layernorm", after="post_feedforward_layernorm"),
    norm=Norm(offset=1.0),
    logits=Logits(cap="final_logit_softcapping"),
    activation_key="hidden_activation",
    embedding_scale="embed_scale",
    bias_keys=(),
    layer_keys=("layer_types",),
    gguf=None,  # llama.cpp's gemma2 lets every other layer slide, whichever layers are left
)
