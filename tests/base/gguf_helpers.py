"""GGUF files as llama.cpp's converters write them, and packages that carry one."""

import hashlib
from pathlib import Path

import numpy as np
import yaml
from export_helpers import TEXTS
from gguf import GGMLQuantizationType, GGUFWriter
from gguf.quants import quantize
from helpers import ROOT

from stages.base.params import BaseParams
from stages.base.tokenizer import train_tokenizer
from stages.export.gguf_tokenizer import write_tokenizer
from stages.models.gguf_file import gguf_name, interleave
from stages.models.parts import family_of

BASE = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))["base"]


def base_params(**changes) -> BaseParams:
    """Return section `base` of the project's own params, changed."""
    return BaseParams.model_validate(BASE | changes)


def converted(model, file: Path, architecture: str, kind: str = "F32", tokenizer=None, **metadata) -> Path:
    """Write `model` to `file` as llama.cpp's own converter does; `metadata` are keys of the architecture to add."""
    config, head_dim = model.config, model.model.layers[0].self_attn.head_dim
    writer = GGUFWriter(file, architecture)
    writer.add_name("Tiny Model")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    for key, value in metadata.items():
        add = {str: writer.add_string, int: writer.add_uint32, float: writer.add_float32, list: writer.add_array}
        add[type(value)](f"{architecture}.{key.replace('__', '.')}", value)
    write_tokenizer(writer, tokenizer or train_tokenizer(TEXTS, 300), config.vocab_size)
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        values = tensor.float()
        if architecture == "llama" and name.split(".")[-2] in ("q_proj", "k_proj"):
            values = interleave(values, head_dim)
        chosen = GGMLQuantizationType[kind if tensor.ndim == 2 else "F32"]
        packed = quantize(np.ascontiguousarray(values.numpy()), chosen)
        writer.add_tensor(str(gguf_name(name, family_of(model.config))), packed, raw_dtype=chosen)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def install(site: Path, files: dict[str, bytes], licence: str = "License: MIT") -> None:
    """Put a distribution `tiny-model` 1.2 with `files` into folder `site`; its module cannot be imported."""
    files = {"tiny_model/__init__.py": b"raise ImportError('never imported')\n", **files}
    info = site / "tiny_model-1.2.dist-info"
    for name, content in files.items():
        (site / name).parent.mkdir(parents=True, exist_ok=True)
        (site / name).write_bytes(content)
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.2\n{licence}\n")
    (info / "RECORD").write_text("".join(f"{name},,\n" for name in files))


def sha256(file: Path) -> str:
    """Return the hash of a file."""
    return hashlib.sha256(file.read_bytes()).hexdigest()
