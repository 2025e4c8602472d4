"""Text in lm-eval's package. It is read from the files, since importing lm-eval takes seconds."""

import hashlib
import importlib.metadata
import importlib.util
from pathlib import Path
from typing import Any

from stages.common.errors import UserError


def installed_files(name: str, folder: str, pattern: str) -> list[Path]:
    """Return the files of lm-eval's `folder` that match `pattern`, sorted; UserError, naming `name`, without any."""
    spec = importlib.util.find_spec("lm_eval")
    root = Path(spec.submodule_search_locations[0], folder) if spec and spec.submodule_search_locations else None
    found = sorted(root.glob(pattern)) if root else []
    if not found:
        raise UserError(f"{name}: lm_eval/{folder} is not installed; run `make setup`")
    return found


def source(name: str, texts: list[str]) -> dict[str, Any]:
    """Return the record of `name`: its source and the hash of its text."""
    digest = hashlib.sha256("\0".join(texts).encode()).hexdigest()
    return {"name": name, "revision": f"lm-eval {importlib.metadata.version('lm_eval')}", "sha256": digest}
