"""Mistral (Jiang et al. 2023): Llama's parts, with attention over a sliding window and no biases."""

from dataclasses import replace

from stages.models.families import llama

FAMILY = replace(llama.FAMILY, model_class="MistralForCausalLM", bias_keys=(), heads_divide_hidden_size=False)
