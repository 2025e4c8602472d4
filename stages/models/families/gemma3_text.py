"""Gemma 3 (2025), text alone: Gemma 2's parts, with norms over the queries and keys of each head."""

from dataclasses import replace

from stages.models.families import gemma2

FAMILY = replace(
    gemma2.FAMILY,
    model_class="Gemma3ForCausalLM",
    attention=replace(gemma2.FAMILY.attention, query_norm="q_norm", key_norm="k_norm"),
)
