"""Granite (IBM 2024): Llama's parts, with multipliers of embeddings, attention scores, what is added, and logits."""

from dataclasses import replace

from stages.models.architecture import Logits
from stages.models.families import llama

FAMILY = replace(
    llama.FAMILY,
    model_class="GraniteForCausalLM",
    logits=Logits(divisor="logits_scaling"),
    residual_key="residual_multiplier",
    heads_divide_hidden_size=False,
    gguf="granite",
    gguf_keys=(
        ("embedding_multiplier", "embedding_scale"),
        ("attention_multiplier", "attention.scale"),
        ("residual_multiplier", "residual_scale"),
        ("logits_scaling", "logit_scale"),
    ),
)
