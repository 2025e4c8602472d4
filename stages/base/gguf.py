"""base.source = gguf: a local GGUF file, dequantised.

The file is linked into a model folder with config.json and tokenizer, which the loaders of source `path` read.
"""

import hashlib
import os
import shutil
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import torch
from huggingface_hub import ModelCardData
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from stages.base import local_folder
from stages.base.gguf_config import read_config
from stages.base.gguf_tokenizer import read_tokenizer
from stages.base.params import BaseParams
from stages.common.errors import UserError
from stages.common.outputs import remove
from stages.common.training import Progress
from stages.models.gguf_header import Header, read_header

LINK = "model.gguf"
UNQUANTISED = {"F32", "F16", "BF16"}
CARD = """\
---
{metadata}
---

# {name}

Made from {source} (sha256 `{sha256}`).

Tensors in the file: {kinds}. {origin}

Licence: {licence}.
"""
DEQUANTISED = (
    "They were dequantised to {dtype} and keep the rounding of the file: they are not the model's original weights."
)
CONVERTED = "They were converted to {dtype}."


@dataclass(frozen=True)
class Origin:
    """Where a GGUF file comes from."""

    source: str
    sha256: str
    licence: str | None = None  # as whoever distributes the file names it


def make(
    params: BaseParams, device: torch.device, state: Path
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, Progress]:
    """Return model and tokenizer of the GGUF file `params.path`, dequantised, and the progress of no training.

    Raises UserError for what `load` does not take.
    """
    file = find_file(Path(str(params.path)))
    with file.open("rb") as content:
        sha256 = hashlib.file_digest(content, "sha256").hexdigest()
    return load(file, Origin(f"the file `{file.name}`", sha256), params, state)


def find_file(path: Path) -> Path:
    """Return the GGUF file at `path`, or the only one in a folder of that name."""
    if path.is_file():
        return path
    found = sorted(path.glob("*.gguf")) if path.is_dir() else []
    if len(found) == 1 and found[0].is_file():
        return found[0]
    named = f"holds {len(found)} GGUF files" if path.is_dir() else "is not a file"
    raise UserError(f"base.path = {str(path)!r} {named}; expected a GGUF file, or a folder with exactly one")


def load(
    file: Path, origin: Origin, params: BaseParams, state: Path
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, Progress]:
    """Return the model in `file`, in the params' dtype, its tokenizer, and the progress of no training.

    The model is a paged one, so that it may be larger than memory; `state` holds a folder for it until it is saved.
    Raises UserError, naming the file, for one that is damaged or of an architecture, a tensor type or a tokenizer that
    is not supported.
    """
    header = read_header(file)
    config = read_config(header, file)
    config.dtype = getattr(torch, params.dtype)
    folder = state / "gguf"
    remove(folder)
    folder.mkdir(parents=True)
    # Alone in a folder: transformers would take an adapter or a tokenizer that happened to lie beside the file.
    link = folder / LINK
    try:
        os.link(file.resolve(), link)
    except OSError:  # another disk
        shutil.copyfile(file, link)
    tokenizer = read_tokenizer(header, link, file)
    config.save_pretrained(folder)
    special = {name: getattr(config, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    GenerationConfig(**special).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "README.md").write_text(card(header, file, origin, params.dtype), encoding="utf-8")
    try:
        return local_folder.load(folder, params, state)
    except UserError as error:
        raise UserError(str(error).replace(str(link), str(file)).replace(str(folder), str(file))) from None


def quantised_as(folder: Path) -> str | None:
    """Return the tensor type of most quantised weights that `load` put in `folder`; None where there are none."""
    counts = Counter(tensor.kind for tensor in read_header(folder / LINK).tensors.values())
    return next((kind for kind, _ in counts.most_common() if kind not in UNQUANTISED), None)


def card(header: Header, file: Path, origin: Origin, dtype: str) -> str:
    """Return the card of the model in `file`: its origin, the tensor types of the file, and the licence."""
    stated = str(header.metadata.get("general.license") or origin.licence or "")
    counts = Counter(tensor.kind for tensor in header.tensors.values())
    quantised = set(counts) - UNQUANTISED
    return CARD.format(
        metadata=ModelCardData(license=stated.lower() or "unknown", library_name="transformers").to_yaml(),
        name=header.metadata.get("general.name") or file.stem,
        source=origin.source,
        sha256=origin.sha256,
        kinds=", ".join(f"{count} in {kind}" for kind, count in counts.most_common()),
        origin=(DEQUANTISED if quantised else CONVERTED).format(dtype=dtype),
        licence=stated or "unknown; the file names none",
    )
