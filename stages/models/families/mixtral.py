"""Mixtral (Jiang et al. 2024): Mistral's attention; the MLP is a mixture of experts, two of eight for each token."""

from dataclasses import replace

from stages.models.architecture import Experts
from stages.models.families import mistral

EXPERTS = Experts(
    "mlp",
    norm="post_attention_layernorm",
    count_key="num_local_experts",
    width_key="intermediate_size",
    router="gate",
    stack="experts",
    gate_up="gate_up_proj",
    output="down_proj",
    file_module="block_sparse_moe",
    file_matrices=("w1", "w3", "w2"),
)
FAMILY = replace(mistral.FAMILY, model_class="MixtralForCausalLM", mlp=EXPERTS, gguf=None)  # no export of experts
