"""Write a model as GGUF, for llama.cpp.

Llama's layers with one width are architecture `llama` there, with different widths `deci`, whose head counts and MLP
widths are arrays with one entry per layer, 0 heads where it has no attention. Mistral and Qwen2 have the same layers
(Qwen2 with biases) and are written like Llama: llama.cpp's own `qwen2` requires hidden_size / heads rows of queries.
Qwen3 normalises queries and keys, which only `qwen3` supports, with one width; likewise only `granite` supports
Granite's multipliers.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from stages.common.errors import UserError
from stages.export.gguf_tokenizer import write_tokenizer
from stages.models.gguf_file import ROPE_FACTORS, gguf_name, interleave, is_rotated
from stages.models.parts import Parts, family_of

FILE = "model.gguf"
FLOAT16_MAX = torch.finfo(torch.float16).max
QUANTISATIONS = ("f32", "f16", "q8_0", "q4_0")


def write_gguf(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, quantisation: str, file: Path) -> None:
    """Write `model` to `file` with its matrices in `quantisation`, one of QUANTISATIONS; vectors stay float32.

    The head, and an embedding that is tied to it, are q8_0 in a q4_0 file, since they cost the most there. Raises
    UserError, naming the tensor or the config's key, for what GGUF or llama.cpp cannot hold.
    """
    from gguf import GGMLQuantizationType, GGUFWriter
    from gguf.quants import quantize

    config, widths, head_dim = model.config, layer_widths(model), Parts(model).head_dim
    architecture = choose_architecture(model, widths)
    tensors = {name: tensor for name, tensor in model.state_dict().items() if not is_repeated(name, model)}
    types = {name: tensor_type(name, tensor, quantisation, model) for name, tensor in tensors.items()}
    writer = GGUFWriter(file, architecture)
    write_shape(writer, config, widths, head_dim, quantisation)
    factors = write_rope(writer, config, head_dim)
    write_tokenizer(writer, tokenizer, config.vocab_size, generation_ends(model))
    if factors is not None:
        writer.add_tensor(ROPE_FACTORS, factors)
    for name, tensor in tensors.items():
        values = tensor.detach().float().cpu()
        target = gguf_name(name, family_of(config))
        if target is None or (architecture == "qwen3" and name.endswith(".bias")):
            raise UserError(
                f"{name} has no place in llama.cpp's architecture `{architecture}`; export padded or "
                "safetensors instead"
            )
        if is_rotated(target, architecture):
            values = interleave(values, head_dim)
        if types[name] is GGMLQuantizationType.F16 and values.abs().max() > FLOAT16_MAX:
            raise UserError(f"{name} holds values too large for float16; use gguf-f32")
        packed = quantize(np.ascontiguousarray(values.numpy()), types[name])
        writer.add_tensor(target, packed, raw_dtype=types[name])
    try:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
    finally:
        writer.close()


def generation_ends(model: PreTrainedModel) -> list[int]:
    """Return the tokens that end generation, by the model's generation config."""
    own = model.generation_config
    ends = own.eos_token_id if own else model.config.eos_token_id
    return ends if isinstance(ends, list) else [] if ends is None else [ends]


def layer_widths(model: PreTrainedModel) -> list[tuple[int, int, int]]:
    """Return (query heads, KV heads, MLP width) of every layer, read from its weights."""
    parts = Parts(model)
    return [
        (each["num_attention_heads"], each["num_key_value_heads"], parts.mlp_width(layer))
        for each, layer in zip(parts.widths, parts.layers, strict=True)
    ]


def choose_architecture(model: PreTrainedModel, widths: list[tuple[int, int, int]]) -> str:
    """Return llama.cpp's name for the architecture; UserError, naming the reason, if it has none."""
    config, uniform = model.config, len(set(widths)) == 1 and all(widths[0])  # a width of 0 is of what a layer lacks
    family = family_of(config)
    if family.gguf is None:
        raise UserError(
            f"model_type = {config.model_type!r} of config.json has no architecture in llama.cpp that holds it; "
            "export padded or safetensors instead"
        )
    if config.hidden_act != "silu":
        raise UserError(f"hidden_act = {config.hidden_act!r} of config.json; expected 'silu', as in llama.cpp's Llama")
    if family.gguf_keys and not uniform:
        raise UserError(
            f"{family.gguf_keys[0][0]} of config.json: llama.cpp's `{family.gguf}` has it only for layers of "
            "one width; set prune.layout = uniform, or export padded"
        )
    if family.attention.query_norm:
        if uniform:
            return family.gguf
        raise UserError(
            f"{family.layers}.0.{family.attention.module}.{family.attention.query_norm}.weight: llama.cpp "
            "supports query norms only if all layers have one width; set prune.layout = uniform, or export padded"
        )
    for layer, (heads, _, mlp) in enumerate(widths):
        if not mlp or not (heads or layer):
            raise UserError(
                f"skip of layer {layer} in config.json: llama.cpp's `deci` has no layer without an MLP, and no first "
                "layer without attention; export padded or safetensors instead"
            )
    return family.gguf if uniform else "deci"


def is_repeated(name: str, model: PreTrainedModel) -> bool:
    """Return whether the tensor is a tied head, which is not written: llama.cpp then uses the embedding."""
    return name == f"{family_of(model.config).head}.weight" and model.config.tie_word_embeddings


def tensor_type(name: str, tensor: torch.Tensor, quantisation: str, model: PreTrainedModel) -> Any:
    """Return the GGML type that the tensor gets; UserError if its rows are not a multiple of the type's block."""
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    if tensor.ndim == 1:
        return GGMLQuantizationType.F32
    family = family_of(model.config)
    head = family.embeddings if model.config.tie_word_embeddings else family.head
    if quantisation == "q4_0" and name == f"{head}.weight":
        quantisation = "q8_0"
    kind = GGMLQuantizationType[quantisation.upper()]
    block, _ = GGML_QUANT_SIZES[kind]
    if tensor.shape[-1] % block:
        remedy = "prune.round_to = 32 for a pruned layer, base.intermediate_size for the base's own"
        if not name.endswith(f".{family.mlp.output}.weight"):
            heads = name.endswith(f".{family.attention.output}.weight")
            remedy = "base.heads or base.hidden_size" if heads else "base.hidden_size"
        raise UserError(
            f"{name} has rows of {tensor.shape[-1]} values, and {quantisation} packs blocks of {block}; "
            f"expected a multiple of {block} (change {remedy}), or gguf-f16"
        )
    return kind


def reach(config: Any) -> int:
    """Return the context in which llama.cpp's Llama equals the model: its sliding window, or its full context."""
    context, window = config.max_position_embeddings, getattr(config, "sliding_window", None)
    slides = "sliding_attention" in (getattr(config, "layer_types", None) or ["sliding_attention"])
    return min(context, window) if window and slides else context


def write_shape(writer: Any, config: Any, widths: list[tuple[int, int, int]], head_dim: int, quantisation: str) -> None:
    """Write the sizes: one number if it is the same in all layers, else one per layer."""
    from gguf import GGML_QUANT_VERSION, LlamaFileType

    heads, kv_heads, mlp = (list(column) if len(set(column)) > 1 else column[0] for column in zip(*widths, strict=True))
    writer.add_context_length(reach(config))
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(len(widths))
    writer.add_feed_forward_length(mlp)
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    for key, name in family_of(config).gguf_keys:
        writer.add_float32(f"{writer.arch}.{name}", getattr(config, key))
    types = {"f32": "ALL_F32", "f16": "MOSTLY_F16", "q8_0": "MOSTLY_Q8_0", "q4_0": "MOSTLY_Q4_0"}
    writer.add_file_type(LlamaFileType[types[quantisation]])
    if quantisation.startswith("q"):
        writer.add_quantization_version(GGML_QUANT_VERSION)


def write_rope(writer: Any, config: Any, head_dim: int) -> np.ndarray | None:
    """Write the rotary embedding; return the factors of each frequency where `rope_type` is llama3.

    Shape (head_dim / 2,), float32: llama.cpp divides the frequencies by them (transformers, `rope_type: llama3`).
    """
    from gguf import RopeScalingType

    rope = config.rope_parameters
    writer.add_rope_dimension_count(head_dim)
    writer.add_rope_freq_base(rope["rope_theta"])
    kind = rope.get("rope_type", "default")
    if kind == "linear":
        writer.add_rope_scaling_type(RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(rope["factor"])
    if kind in ("default", "linear"):
        return None
    if kind != "llama3":
        raise UserError(
            f"rope_type = {kind!r} of config.json is not written as GGUF; expected one of: default, linear, llama3; "
            "export padded or safetensors instead"
        )
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](config, torch.device("cpu"))
    plain = 1 / rope["rope_theta"] ** (torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim)
    return (plain / scaled).numpy()
