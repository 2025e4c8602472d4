"""Notice changes of the user's files that params.yaml names.

DVC cannot depend on a path that is null in params.yaml. So stage check, which every `dvc repro` runs, writes the state
of each path to inputs/data.json and inputs/base.json, on which stages data and base depend.
"""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from stages.base.params import BaseParams
from stages.common.errors import UserError
from stages.common.outputs import staged
from stages.data.params import DataParams

FOLDER = Path("inputs")
MOST_FILES = 1_000_000


def used_paths(data: DataParams, base: BaseParams) -> dict[str, dict[str, str]]:
    """Return by stage the keys of params.yaml whose paths it reads, and the paths."""
    keys = {
        "data": {
            "data.path": data.path if data.source == "files" else None,
            "data.task_folder": data.task_folder,
            "data.mirror": data.mirror if data.source != "hub" else None,
        },
        "base": {"base.path": base.path if base.source in ("path", "gguf", "shape") else None},
    }
    return {stage: {key: path for key, path in paths.items() if path} for stage, paths in keys.items()}


def record(stage: str, paths: dict[str, str]) -> None:
    """Write inputs/<stage>.json: the paths, and a digest of each.

    A path that is not on this machine keeps the digest that was recorded, and a line says so: the outputs made of it
    may come from DVC's cache. Raises UserError for one that was never here.
    """
    file = FOLDER / f"{stage}.json"
    earlier = read(file)
    found: dict[str, dict[str, str]] = {}
    for key, path in paths.items():
        if os.path.lexists(path):
            found[key] = {"path": path, "digest": digest(key, path)}
        elif earlier.get(key, {}).get("path") == path:
            found[key] = earlier[key]
            print(f"check: {key} = {path!r} is not on this machine; its state recorded in {file} is used", flush=True)
        else:
            raise UserError(f"{key} = {path!r} does not exist; expected a file or folder")
    with staged(file) as temporary:
        temporary.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


def read(file: Path) -> dict[str, Any]:
    """Return the earlier record; an empty one if the file is missing or damaged."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def digest(key: str, path: str) -> str:
    """Return a hash of the names, sizes and times of change of all files under `path`; no file is opened.

    Raises UserError for a folder of more than MOST_FILES files, which is hardly meant.
    """
    root = Path(path)
    files = (
        [root] if not root.is_dir() else [Path(folder, name) for folder, _, names in os.walk(root) for name in names]
    )
    if len(files) > MOST_FILES:
        raise UserError(f"{key} = {path!r} holds more than {MOST_FILES:,} files; expected the folder of the data alone")
    lines = []
    for file in sorted(files):
        try:
            status = file.stat()
        except OSError:  # a dangling link: what reads it says so
            status = file.lstat()
        lines.append(f"{file.relative_to(root).as_posix()}\0{status.st_size}\0{status.st_mtime_ns}")
    return hashlib.sha256("\n".join(lines).encode(errors="surrogateescape")).hexdigest()
