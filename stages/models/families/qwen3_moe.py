"""Qwen3-MoE (Yang et al. 2025): Qwen3's attention; the MLP is a mixture of experts, eight of 128 for each token."""

from dataclasses import replace

from stages.models.families import olmoe, qwen3

FAMILY = replace(
    qwen3.FAMILY,
    model_class="Qwen3MoeForCausalLM",
    mlp=replace(
        olmoe.EXPERTS,
        count_key="num_local_experts",  # what transformers writes for num_experts
        width_key="moe_intermediate_size",
    ),
    layer_keys=(),
    gguf=None,  # no export of experts
)
