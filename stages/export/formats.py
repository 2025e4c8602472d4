"""Write one model in one format to a folder."""

import json
from pathlib import Path

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from stages.common.checkpoint import save_checkpoint
from stages.export.gguf_model import FILE, write_gguf
from stages.export.padded import pad


def write(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, kind: str, folder: Path) -> None:
    """Write `model` to `folder` in format `kind` of params.yaml, with its config and tokenizer."""
    family, _, detail = kind.partition("-")
    if family == "padded":
        save_checkpoint(pad(model), tokenizer, folder)
    elif family == "safetensors":
        save_checkpoint(model.to(getattr(torch, detail)), tokenizer, folder)
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


def weights_mib(folder: Path) -> float:
    """Return the size of the weight files in `folder`."""
    return sum(file.stat().st_size for file in folder.iterdir() if file.suffix in (".gguf", ".safetensors")) / 2**20
