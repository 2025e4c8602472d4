"""The transformers config of a GGUF file, from its metadata and the shapes of its tensors."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import LlamaConfig, PreTrainedConfig, Qwen2Config, Qwen3Config
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from stages.common.errors import UserError
from stages.models.gguf_file import ROPE_FACTORS, Packed, architecture_of, count, head_dimension, metadata
from stages.models.gguf_header import Header

LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
CONFIGS: dict[str, type[PreTrainedConfig]] = {"llama": LlamaConfig, "qwen2": Qwen2Config, "qwen3": Qwen3Config}


def read_config(header: Header, file: Path) -> PreTrainedConfig:
    """Return the config of the model in `file`; UserError, naming the file and the key, for one not supported here.

    Mistral's models are `llama` in GGUF, which they are but for their name.
    """
    architecture = architecture_of(header, file)
    if architecture not in CONFIGS:
        raise UserError(
            f"{file}: general.architecture = {architecture!r} is not supported; expected one of: {', '.join(CONFIGS)}"
        )
    layers = count(header, "block_count", file)
    if f"blk.{layers - 1}.attn_norm.weight" not in header.tensors or "token_embd.weight" not in header.tensors:
        raise UserError(f"{file} lacks tensors of its {layers} layers or its embeddings; fetch or export it again")
    heads = count(header, "attention.head_count", file)
    settings: dict[str, Any] = {
        "vocab_size": header.tensors["token_embd.weight"].shape[0],
        "hidden_size": count(header, "embedding_length", file),
        "intermediate_size": count(header, "feed_forward_length", file),
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": count(header, "attention.head_count_kv", file, heads),
        "head_dim": head_dimension(header, file),
        "max_position_embeddings": count(header, "context_length", file),
        "rms_norm_eps": number(header, "attention.layer_norm_rms_epsilon", file),
        "rope_parameters": rope_parameters(header, file),
        "tie_word_embeddings": "output.weight" not in header.tensors,
    }
    if architecture == "llama":
        settings["attention_bias"] = "blk.0.attn_output.bias" in header.tensors
        settings["mlp_bias"] = "blk.0.ffn_down.bias" in header.tensors
    for name in ("bos", "eos", "padding"):
        key = f"tokenizer.ggml.{name}_token_id"
        token = settings[f"{name.removesuffix('ding')}_token_id"] = header.metadata.get(key)
        if token is not None and token not in range(settings["vocab_size"]):
            raise UserError(f"{file}: {key} = {token!r}; expected one of {settings['vocab_size']} tokens")
    return CONFIGS[architecture](**settings)


def rope_parameters(header: Header, file: Path) -> dict[str, Any]:
    """Return the rotary embedding; UserError for a kind that is not read from GGUF here."""
    architecture = architecture_of(header, file)
    prefix = f"{architecture}.rope"
    rope: dict[str, Any] = {"rope_type": "default", "rope_theta": number(header, "rope.freq_base", file, 10_000.0)}
    kind = header.metadata.get(f"{prefix}.scaling.type", "none")
    if kind == "linear":
        rope |= {"rope_type": "linear", "factor": number(header, "rope.scaling.factor", file)}
    elif kind != "none":
        raise UserError(f"{file}: {prefix}.scaling.type = {kind!r} is not supported; expected one of: none, linear")
    rotated, head_dim = header.metadata.get(f"{prefix}.dimension_count"), head_dimension(header, file)
    if rotated not in (None, head_dim):
        raise UserError(f"{file}: {prefix}.dimension_count = {rotated}; expected the heads' size, {head_dim}")
    return rope | llama3_rope(header, file, rope["rope_theta"], head_dim) if ROPE_FACTORS in header.tensors else rope


def llama3_rope(header: Header, file: Path, theta: float, head_dim: int) -> dict[str, Any]:
    """Return the settings of Llama 3.1 and later. GGUF holds only the divisors of the frequencies.

    The largest divisor is the factor, and the others must be what follows from it with the settings that all these
    models share.
    """
    factors = Packed(file, header.tensors[ROPE_FACTORS], None)[...]
    rope = {"rope_type": "llama3", "rope_theta": theta, "factor": float(str(factors.max().numpy())), **LLAMA3}
    config = LlamaConfig(hidden_size=head_dim, num_attention_heads=1, head_dim=head_dim, rope_parameters=rope)
    scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](config, torch.device("cpu"))
    plain = 1 / theta ** (torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim)
    if factors.shape != plain.shape or not torch.allclose(plain / scaled, factors, rtol=1e-3):
        raise UserError(
            f"{file}: tensor {ROPE_FACTORS} holds rope factors other than Llama 3's, which are not supported"
        )
    return rope


def number(header: Header, key: str, file: Path, default: float | None = None) -> float:
    """Return a positive number of the architecture's metadata, in the fewest digits that give the stored float32."""
    key = f"{architecture_of(header, file)}.{key}"
    value = metadata(header, key, file) if default is None else header.metadata.get(key, default)
    if not isinstance(value, int | float) or not 0 < value < np.inf:
        raise UserError(f"{file}: {key} = {value!r}; expected a positive number")
    return float(str(np.float32(value)))
