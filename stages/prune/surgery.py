"""Remove units from a model for good."""

import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from stages.common.modeling_pruned_llama import PrunedLlamaConfig, PrunedLlamaForCausalLM
from stages.prune.units import Module

WIDTHS = ("num_attention_heads", "num_key_value_heads", "intermediate_size")


@torch.no_grad()
def keep_units(module: Module, keep: torch.Tensor) -> None:
    """Cut every matrix of `module` down to the units `keep`, in place, one matrix at a time."""
    for linear, dim in module.matrices:
        linear.weight = nn.Parameter(cut(linear.weight, module.units, dim, keep), requires_grad=False)
        if dim == 0 and linear.bias is not None:
            linear.bias = nn.Parameter(cut(linear.bias, module.units, 0, keep), requires_grad=False)
        linear.out_features, linear.in_features = linear.weight.shape


def cut(tensor: torch.Tensor, units: int, dim: int, keep: torch.Tensor) -> torch.Tensor:
    """Return `tensor` with only the units `keep` along dimension `dim`."""
    return tensor.unflatten(dim, (units, -1)).index_select(dim, keep.to(tensor.device)).flatten(dim, dim + 1)


def layer_widths(model: PreTrainedModel) -> list[dict[str, int]]:
    """Return the widths of every layer as its weights have them, keyed as in config.json."""
    return [
        {
            "num_attention_heads": layer.self_attn.q_proj.out_features // layer.self_attn.head_dim,
            "num_key_value_heads": layer.self_attn.k_proj.out_features // layer.self_attn.head_dim,
            "intermediate_size": layer.mlp.gate_proj.out_features,
        }
        for layer in model.model.layers
    ]


def rebuild(model: PreTrainedModel) -> PreTrainedModel:
    """Return a model of the class and config that fit the cut weights, sharing them.

    One width in all layers gives a plain LlamaForCausalLM, unless the number of heads does not divide hidden_size,
    which transformers' LlamaConfig refuses; that and different widths give a PrunedLlamaForCausalLM.
    """
    widths = layer_widths(model)
    dropped = ("per_layer_config", "auto_map", "model_type", "architectures")
    settings = {key: value for key, value in model.config.to_dict().items() if key not in dropped}
    settings["head_dim"] = model.model.layers[0].self_attn.head_dim
    if all(each == widths[0] for each in widths):
        settings |= widths[0]
    same = all(each == widths[0] for each in widths)
    with torch.device("meta"):
        if same and settings["hidden_size"] % widths[0]["num_attention_heads"] == 0:
            rebuilt = LlamaForCausalLM(LlamaConfig(**settings))
        else:
            settings["allow_global_per_layer_attribute_access"] = True
            settings["per_layer_config"] = {
                i: each for i, each in enumerate(widths) if any(settings[key] != each[key] for key in WIDTHS)
            }
            rebuilt = PrunedLlamaForCausalLM(PrunedLlamaConfig(**settings))
    rebuilt.load_state_dict(model.state_dict(), assign=True)
    rebuilt.tie_weights()
    rebuilt.model.rotary_emb = model.model.rotary_emb  # its buffers are not in the state dict
    rebuilt.generation_config = model.generation_config
    return rebuilt.eval()
