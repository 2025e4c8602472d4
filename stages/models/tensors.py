"""Which tensors of a model folder become which weights, and in which dtype: transformers' rules, for every loader."""

import re
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from transformers import PreTrainedConfig, PreTrainedModel

from stages.common.errors import UserError
from stages.models.config import empty_model
from stages.models.expert_tensors import stacked
from stages.models.folder import GGUF, listed, note_ignored, weight_files
from stages.models.gguf_file import gguf_weights
from stages.models.gguf_header import read_header
from stages.models.parts import family_of
from stages.models.safetensors_file import unread

# Buffers that earlier versions of transformers saved; they follow from the config.
BUFFERS = re.compile(
    r"rotary_emb\.inv_freq$|rotary_emb\.(cos|sin)_cached$|(^|\.)position_ids$|\.attention\.(masked_)?bias$"
)


def model_tensors(
    folder: Path, config: PreTrainedConfig, dtype: torch.dtype | None = None
) -> tuple[PreTrainedModel, dict[str, Any]]:
    """Return the model of `folder` on the meta device, and by name the tensors, still to be read, of its weights.

    Each weight has one tensor and each tensor is a weight. `config.dtype` becomes `dtype`, or else what config.json
    says, or else that of the tensors. A head that differs from the embeddings, though the config ties them, is kept and
    the config unties them. Raises UserError, naming the tensors, for weights that are missing or unknown, of another
    shape than the config's, or integers.
    """
    files = check_weight_files(folder)
    note_ignored(folder, files)
    contents: list[dict[str, Any]] = [
        gguf_weights(file, family_of(config)) if file.suffix == GGUF else unread(file) for file in files
    ]
    config.dtype = dtype or config.dtype or own_dtype(contents[0])
    model = empty_model(config, folder)
    wanted = model.state_dict()
    named = {own_name(name, config): tensor for each in contents for name, tensor in each.items()}
    found = stacked(folder, named, family_of(config))
    tensors = by_parameter(folder, found, wanted)
    check_tensors(folder, tensors, wanted)
    if config.tie_word_embeddings:
        tie(tensors, config)
        model = model if config.tie_word_embeddings else empty_model(config, folder)
    if missing := sorted(dict(model.named_parameters()).keys() - tensors.keys()):  # a tied head is not among them
        raise UserError(f"{folder} lacks weights: {listed(missing)}")
    return model.to(config.dtype), tensors  # type: ignore[arg-type] # transformers hides the signature


def check_weight_files(folder: Path) -> list[Path]:
    """Return the weight files of `folder`; UserError, naming the file, where one is not there or not whole."""
    files = weight_files(folder)
    for file in files:
        if file.suffix == GGUF:
            read_header(file)
            continue
        try:
            with safe_open(file, framework="pt"):
                pass
        except SafetensorError as error:
            raise UserError(f"{file} is truncated or corrupt ({error}); fetch or make it again") from None
    return files


def own_dtype(tensors: dict[str, Any]) -> torch.dtype:
    """Return what transformers takes for the dtype of the first file's `tensors`: that of the first one by name.

    Only floating-point tensors count; float32 where there is none.
    """
    dtypes = [tensors[name].dtype for name in sorted(tensors)]
    return next((dtype for dtype in dtypes if dtype.is_floating_point), torch.float32)


def own_name(name: str, config: PreTrainedConfig) -> str:
    """Return the model's name of a tensor: transformers saves some heads by another."""
    family = family_of(config)
    return f"{family.head}.weight" if name == f"{family.saved_head}.weight" else name


def by_parameter(folder: Path, tensors: dict[str, Any], wanted: dict[str, Any]) -> dict[str, Any]:
    """Return `tensors` by the names of `wanted`: saved without the prefix of the decoder, or with one too many."""
    renamed: dict[str, Any] = {}
    for name, tensor in tensors.items():
        if BUFFERS.search(name):
            continue
        shorter = name.removeprefix("model.")
        own = shorter if shorter in wanted else f"model.{name}" if f"model.{name}" in wanted else name
        if own in renamed:
            raise UserError(f"{folder} holds {own} twice, with and without the prefix `model.`")
        renamed[own] = tensor
    return renamed


def check_tensors(folder: Path, tensors: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Raise UserError unless every tensor is one of `wanted`, of its shape, and of floating-point numbers."""
    if unknown := sorted(tensors.keys() - wanted.keys()):
        raise UserError(f"{folder} holds tensors that config.json has no place for: {listed(unknown)}")
    for name, tensor in tensors.items():
        shape, expected = tuple(tensor.shape), tuple(wanted[name].shape)
        if shape != expected:
            raise UserError(f"{folder}: {name} has shape {shape}, but config.json asks for {expected}")
        if not tensor.dtype.is_floating_point:
            kind = str(tensor.dtype).removeprefix("torch.")
            raise UserError(f"{folder}: {name} holds numbers of type {kind}; expected floating point")


def tie(tensors: dict[str, Any], config: PreTrainedConfig) -> None:
    """Leave one tensor to a tied head and its embeddings, or untie them in `config` where they differ."""
    family = family_of(config)
    names = [f"{family.head}.weight", f"{family.embeddings}.weight"]
    if all(name in tensors for name in names):
        head, embeddings = (tensors[name][...].to(config.dtype) for name in names)
        if not head.equal(embeddings):
            config.tie_word_embeddings = False
            return
    if names[0] in tensors:
        head_alone = tensors.pop(names[0])
        tensors.setdefault(names[1], head_alone)
