"""SmolLM3 (Bakouch et al. 2025): Llama's parts, with layers that use no rotary embedding."""

from dataclasses import replace

from stages.models.families import llama

FAMILY = replace(
    llama.FAMILY,
    model_class="SmolLM3ForCausalLM",
    heads_divide_hidden_size=False,
    layer_keys=("no_rope_layers", "layer_types"),
    gguf=None,  # llama.cpp's smollm3 leaves the rotary embedding out of every fourth layer, whichever layers are left
)
