"""Read config.json and refuse, naming the key, what no model can be built from."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.activations import ACT2FN
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from stages.common.errors import UserError
from stages.models.architecture import Experts
from stages.models.folder import ADAPTER_CONFIG, CONFIG, one_line, read_json
from stages.models.parts import FAMILIES, PRUNED, family_of, pruned_class
from stages.models.unknown import how_to_add

SUPPORTED_MODEL_TYPES = (*FAMILIES, *(f"{PRUNED}{name}" for name in FAMILIES))
LAYERS_LIMIT = 10_000
SIZES = (
    "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
    "num_key_value_heads", "head_dim", "max_position_embeddings", "num_experts", "num_local_experts",
    "num_experts_per_tok", "moe_intermediate_size", "ffn_dim",
)  # fmt: skip

for family in FAMILIES.values():
    pruned = pruned_class(family)
    AutoConfig.register(pruned.config_class.model_type, pruned.config_class)
    AutoModelForCausalLM.register(pruned.config_class, pruned)
    # save_pretrained then copies the module into the folder and names it in config.json's auto_map.
    pruned.config_class.register_for_auto_class("AutoConfig")
    pruned.register_for_auto_class("AutoModelForCausalLM")


def read_config(folder: Path) -> PreTrainedConfig:
    """Return the config of the model in `folder`; UserError names the file, the key and what was expected."""
    if (folder / ADAPTER_CONFIG).is_file():
        raise UserError(f"{folder} holds an adapter ({ADAPTER_CONFIG}); merge it into its model first")
    path = folder / CONFIG
    if not path.exists() and not path.is_symlink():
        raise UserError(f"{folder} is not a checkpoint: {CONFIG} is missing")
    content = read_json(path)
    model_type = content.get("model_type")
    if model_type not in SUPPORTED_MODEL_TYPES:
        raise UserError(
            f"{path}: model_type = {model_type!r} is not supported; expected one of: "
            f"{', '.join(SUPPORTED_MODEL_TYPES)}{how_to_add(content)}"
        )
    quantisation = content.get("quantization_config")
    if quantisation is not None and not isinstance(quantisation, dict):
        raise UserError(f"{path}: quantization_config = {quantisation!r}; expected a mapping")
    for problem in size_problems(content):  # before transformers makes a list of as many layers
        raise UserError(f"{path}: {problem}")
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # whatever transformers stumbles over
        raise UserError(f"{path} is not a valid config for {model_type}: {one_line(error)}") from None
    for problem in config_problems(config):
        raise UserError(f"{path}: {problem}")
    return config


def size_problems(content: dict[str, Any]) -> Iterator[str]:
    """Yield what is wrong with the sizes in `content`; their types are left to transformers."""
    for key in SIZES:
        value = content.get(key)
        if isinstance(value, int) and value < 1:
            yield f"{key} = {value}; expected at least 1"
    layers = content.get("num_hidden_layers")
    if isinstance(layers, int) and layers > LAYERS_LIMIT:
        yield f"num_hidden_layers = {layers}; expected at most {LAYERS_LIMIT}"


def config_problems(config: PreTrainedConfig) -> Iterator[str]:
    """Yield what is wrong with values that transformers accepts and then fails on, or computes NaN from."""
    family = family_of(config)
    heads = config.num_attention_heads
    kv_heads = getattr(config, "num_key_value_heads", heads)
    if config.model_type in FAMILIES and heads % kv_heads:  # layers that differ have heads of their own
        yield f"num_key_value_heads = {kv_heads}; expected a divisor of num_attention_heads = {heads}"
    for name, needed in family.needed:
        expected = getattr(config, needed.removeprefix("=")) if isinstance(needed, str) else needed
        if getattr(config, name) != expected:
            yield f"{name} = {getattr(config, name)!r}; expected {expected!r}"
    activation = getattr(config, family.activation_key)
    eps = getattr(config, family.norm.eps_key) if family.norm.eps_key else 0.0
    if activation not in ACT2FN:
        yield f"{family.activation_key} = {activation!r}; expected one of: {', '.join(sorted(ACT2FN))}"
    if not (math.isfinite(eps) and eps >= 0):
        yield f"{family.norm.eps_key} = {eps}; expected a number of at least 0"
    for key in (family.residual_key, family.logits.factor, family.logits.divisor, family.logits.cap):
        value = getattr(config, key) if key else None
        if value is not None and not 0 < value < math.inf:
            yield f"{key} = {value}; expected a number above 0"
    for each in rope_settings(config):
        kind, theta = each.get("rope_type", "default"), each.get("rope_theta", 1.0)
        if not isinstance(kind, str) or kind not in ("default", *ROPE_INIT_FUNCTIONS):
            yield f"rope_type = {kind!r}; expected one of: default, {', '.join(ROPE_INIT_FUNCTIONS)}"
        if isinstance(theta, bool) or not isinstance(theta, int | float) or not 0 < theta < math.inf:
            yield f"rope_theta = {theta!r}; expected a number above 0"
    if not (config.dtype is None or (isinstance(config.dtype, torch.dtype) and config.dtype.is_floating_point)):
        yield f"dtype = {config.dtype!r}; expected a floating-point type, such as float32 or bfloat16"
    yield from expert_problems(config)
    yield from token_problems(config, config.vocab_size)


def rope_settings(config: PreTrainedConfig) -> list[dict[str, Any]]:
    """Return the settings of the rotary embedding: of all layers alike, or of each type of layer."""
    rope = getattr(config, "rope_parameters", None) or {}
    return list(rope.values()) if all(isinstance(value, dict) for value in rope.values()) else [rope]


def expert_problems(config: PreTrainedConfig) -> Iterator[str]:
    """Yield what is wrong with the experts of a config, if its family has any."""
    names = family_of(config).mlp
    if not isinstance(names, Experts):
        return
    layers, chosen = config.per_layer_config if config.is_heterogeneous else [config], config.num_experts_per_tok
    fewest = min(getattr(layer, names.count_key) for layer in layers)
    if not 1 <= chosen <= fewest:
        yield f"num_experts_per_tok = {chosen}; expected 1 to {names.count_key} = {fewest}"
    if getattr(config, "mlp_only_layers", None):
        yield f"mlp_only_layers = {config.mlp_only_layers}; expected [], experts in every layer"
    if getattr(config, "decoder_sparse_step", 1) != 1:
        yield f"decoder_sparse_step = {config.decoder_sparse_step}; expected 1, experts in every layer"


def token_problems(settings: Any, vocab_size: int) -> Iterator[str]:
    """Yield what is wrong with the special tokens of a config or a generation config; -1 stands for no token."""
    for key in ("bos_token_id", "eos_token_id", "pad_token_id"):
        value = getattr(settings, key, None)
        for token in value if isinstance(value, list) else [value]:
            if isinstance(token, int) and not -1 <= token < vocab_size:
                yield f"{key} = {token}; expected less than vocab_size = {vocab_size}"


def check_context(key: str, tokens: int, config: PreTrainedConfig) -> None:
    """Raise UserError where `key` of params.yaml asks for sequences longer than the model was made for."""
    context = config.max_position_embeddings
    if tokens > context:
        raise UserError(
            f"{key} = {tokens} is longer than the context of {config.name_or_path}; expected at most {context} tokens"
        )


def empty_model(config: PreTrainedConfig, folder: Path) -> PreTrainedModel:
    """Return the model of `config`, which is that of `folder`, on the meta device; UserError if none can be built."""
    architecture = architecture_of(config)
    try:
        with torch.device("meta"):
            return architecture(config)
    except Exception as error:  # a combination of values that read_config does not know
        raise UserError(f"{folder / CONFIG}: it does not describe a valid model: {one_line(error)}") from None


def architecture_of(config: PreTrainedConfig) -> Any:
    """Return the class of the causal language model that `config` describes."""
    # The class itself, since AutoModelForCausalLM copies its arguments, the weights among them.
    return MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]


def is_quantised(config: PreTrainedConfig) -> bool:
    """Return whether `config` is that of a quantised checkpoint."""
    return getattr(config, "quantization_config", None) is not None


def check_not_quantised(config: PreTrainedConfig) -> None:
    """Raise UserError for the config of a quantised checkpoint."""
    if is_quantised(config):
        raise UserError(f"{config.name_or_path} is quantised; expected weights in floating point, which can be pruned")
