"""Multiply-accumulates of one forward pass, counted by ptflops.

Attention is eager, because ptflops does not count the two matrix products in scaled_dot_product_attention. Its aten
backend counts each matrix product once. Every pair of positions counts, causal or not. Tests compare the counts with
torch's FlopCounterMode and with closed formulas. Of a mixture of experts, those that the router chooses
count: gathered for each token, their products have shapes that no value changes.
"""

from copy import deepcopy
from typing import Any

import torch
from ptflops import get_model_complexity_info
from transformers import AutoModelForCausalLM, PreTrainedModel

from stages.models.config import rope_settings


def count_macs(model: PreTrainedModel, sequence_length: int) -> int:
    """Return the MACs of one sequence of `sequence_length` tokens through `model`, without a cache.

    Only structure counts, never a weight's value, so a copy without weights is enough. A bias adds one per output.
    Raises RuntimeError if ptflops fails, which it reports by returning None.
    """
    config = deepcopy(model.config)  # from_config writes the attention into the config it is given
    # Scaled positions take as many products, and dynamic scaling would look at their values, of which there are none.
    for settings in rope_settings(config):
        settings["rope_type"] = "default"
    with torch.device("meta"):
        copy = AutoModelForCausalLM.from_config(
            config, attn_implementation="eager", experts_implementation="batched_mm"
        )

    def inputs(_: tuple[int, ...]) -> dict[str, Any]:
        return {
            "input_ids": torch.zeros(1, sequence_length, dtype=torch.int64, device="meta"),
            # Given, because transformers would look at the values of positions to build the mask, and here are none.
            "attention_mask": torch.zeros(1, 1, sequence_length, sequence_length, device="meta"),
            "position_ids": torch.zeros(1, sequence_length, dtype=torch.int64, device="meta"),
            "use_cache": False,
        }

    with torch.no_grad():
        macs, _ = get_model_complexity_info(
            copy,
            (sequence_length,),
            input_constructor=inputs,
            backend="aten",
            as_strings=False,
            print_per_layer_stat=False,
        )
    if macs is None:
        raise RuntimeError("ptflops could not count this model; its own message is above")
    return int(macs)
