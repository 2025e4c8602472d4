"""Write one model in one format to a folder."""

import importlib.util
import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from stages.common.errors import UserError
from stages.export.gguf_model import FILE, write_gguf
from stages.export.padded import pad
from stages.export.params import WITHOUT_RANK
from stages.models.checkpoint import save_checkpoint
from stages.models.parts import Parts


def write(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, kind: str, folder: Path) -> None:
    """Write `model` to `folder` in format `kind` of params.yaml, with its config and tokenizer.

    Raises UserError, naming what is in the way, for a model that the format cannot hold.
    """
    family, _, detail = kind.partition("-")
    if family != "safetensors" and Parts(model).has_experts:
        raise UserError(
            f"export.formats = {kind} does not hold a mixture of experts (model_type = {model.config.model_type}); "
            "expected one of: safetensors-float32, safetensors-float16, safetensors-bfloat16"
        )
    if kind.startswith(WITHOUT_RANK) and getattr(model.config, "ranks", None):
        raise UserError(
            f"export.formats = {kind} does not hold matrices of low rank (prune.structure = rank); expected one of: "
            "safetensors-float32, safetensors-float16, safetensors-bfloat16, torchao-int8"
        )
    if family == "padded":
        save_checkpoint(pad(model), tokenizer, folder)
    elif family == "safetensors":
        save_checkpoint(model.to(getattr(torch, detail)), tokenizer, folder)
    elif family == "torchao":
        save_checkpoint(quantised(model), tokenizer, folder)
    else:
        folder.mkdir()
        write_gguf(model, tokenizer, detail, folder / FILE)
        # What llama.cpp needs is in the file; these let the folder be evaluated as any other.
        model.config.save_pretrained(folder)
        settings = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        settings["dtype"] = "float32"  # what dequantised weights are
        (folder / "config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
        model.generation_config.save_pretrained(folder)
        tokenizer.save_pretrained(folder)


def quantised(model: PreTrainedModel) -> PreTrainedModel:
    """Return `model` with the matrices of its layers in 8 bits, a scale each row, by torchao through transformers.

    Embedding and head stay as they are, and matrices of one column, as products of rank 1 have: torchao takes none.
    Raises UserError where torchao is not installed.
    """
    if importlib.util.find_spec("torchao") is None:
        raise UserError("torchao is not installed; run `make torchao`, or use gguf-q8_0")
    from torchao.quantization import Int8WeightOnlyConfig
    from transformers import TorchAoConfig
    from transformers.quantizers.base import get_keys_to_not_convert

    columns = [name for name, each in model.named_modules() if isinstance(each, nn.Linear) and each.in_features == 1]
    # Without torchao's settings for the compiler: they lower the precision of every float32 product of the process.
    kind = TorchAoConfig(
        Int8WeightOnlyConfig(set_inductor_config=False),
        modules_to_not_convert=[*get_keys_to_not_convert(model), *columns] if columns else None,
    )
    from_weights: Any = type(model).from_pretrained
    result = from_weights(
        None, config=deepcopy(model.config), state_dict=model.state_dict(), dtype=model.dtype, quantization_config=kind
    )
    result.generation_config = model.generation_config
    return result


def weights_mib(folder: Path) -> float:
    """Return the size of the weight files in `folder`."""
    return sum(file.stat().st_size for file in folder.iterdir() if file.suffix in (".gguf", ".safetensors")) / 2**20
