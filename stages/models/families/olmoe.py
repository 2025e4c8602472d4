"""OLMoE (Muennighoff et al. 2024): norms over all queries and all keys; the MLP is a mixture of experts."""

from dataclasses import replace

from stages.models.families import llama, mixtral

EXPERTS = replace(
    mixtral.EXPERTS,
    count_key="num_experts",
    file_module="mlp",
    file_matrices=("gate_proj", "up_proj", "down_proj"),
)
FAMILY = replace(
    llama.FAMILY,
    model_class="OlmoeForCausalLM",
    attention=replace(llama.FAMILY.attention, query_norm="q_norm", key_norm="k_norm", unit_norms="together"),
    mlp=EXPERTS,
    bias_keys=(),
    heads_divide_hidden_size=False,
    fixed_heads=True,  # its norm of queries is as wide as the hidden size
    gguf=None,  # no export of experts
)
