"""Text in installed packages. It is read from their files: importing lm-eval, for one, takes seconds."""

import hashlib
import importlib.metadata
import importlib.util
from pathlib import Path
from typing import Any

from stages.common.errors import UserError


def installed_folder(name: str, package: str, folder: str = "") -> Path:
    """Return `folder` of `package`, which is not imported; UserError, which begins with `name`, if missing."""
    spec = importlib.util.find_spec(package)
    found = Path(spec.submodule_search_locations[0], folder) if spec and spec.submodule_search_locations else None
    if not found or not found.is_dir():
        raise UserError(f"{name}: {Path(package, folder)} is not installed; run `make setup`")
    return found


def installed_files(name: str, package: str, folder: str, pattern: str) -> list[Path]:
    """Return the files of that folder that match `pattern`, sorted; UserError, which begins with `name`, if none do."""
    found = sorted(installed_folder(name, package, folder).glob(pattern))
    if not found:
        raise UserError(f"{name}: {package}/{folder} has no {pattern}; run `make setup`")
    return found


def source(name: str, distributions: tuple[str, ...], texts: list[str]) -> dict[str, Any]:
    """Return the record of `name`: the distributions that it comes from, with versions, and the hash of its text."""
    versions = ", ".join(f"{each} {importlib.metadata.version(each)}" for each in distributions)
    return {"name": name, "revision": versions, "sha256": hashlib.sha256("\0".join(texts).encode()).hexdigest()}
