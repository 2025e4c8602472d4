"""The saved state of an interrupted run: where it is stored, how it is checked, how it is written.

A state is one safetensors file: tensors, a record as JSON, and a checksum of both. A damaged state is removed with one
line: it costs time, but never a result.
"""

import hashlib
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

ATTEMPTS = 5
RECORD, CHECKSUM = "record", "sha256"  # in the file's metadata


def state_folder(stage: str, *inputs: str) -> Path:
    """Return where a run of `stage` keeps its state: outside DVC's outputs, keyed by a hash of the inputs.

    It lives under the outermost .dvc/tmp, so that a queued experiment, whose workspace is a folder inside .dvc/tmp
    that dies with it, finds the state again.
    """
    key = hashlib.sha256("\n".join(inputs).encode()).hexdigest()[:16]
    here = Path.cwd()
    root = next((folder for folder in reversed([here, *here.parents]) if (folder / ".dvc").is_dir()), here)
    return root / ".dvc" / "tmp" / "resume" / f"{stage}-{key}"


def digest(*paths: str | Path) -> str:
    """Return a hash of files and of the files in folders, for `state_folder`, without compiled Python."""
    total = hashlib.sha256()
    for path in map(Path, paths):
        files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
        for file in files:
            if file.suffix != ".pyc":
                with file.open("rb") as content:
                    total.update(file.name.encode() + b"\0" + hashlib.file_digest(content, "sha256").digest())
    return total.hexdigest()


def forget(folder: Path) -> None:
    """Remove a run's state after its result is safe."""
    shutil.rmtree(folder, ignore_errors=True)


def write_state(file: Path, record: Any, tensors: dict[str, torch.Tensor] | None = None) -> None:
    """Write `record` (JSON) and `tensors` as one state, which replaces the one before it in one move."""
    content = {name: tensor.detach().contiguous() for name, tensor in (tensors or {}).items()}
    text = json.dumps(record)
    # The process in the name: two experiments that share this stage's inputs may run it at the same time.
    temporary = file.with_name(f"{file.name}.{os.getpid()}.partial")
    for attempt in range(ATTEMPTS):
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            save_file(content, temporary, metadata={RECORD: text, CHECKSUM: checksum(text, content)})
            temporary.replace(file)
            return
        except (FileNotFoundError, FileExistsError, SafetensorError):  # the other one is removing the folder
            if attempt == ATTEMPTS - 1:
                raise
        finally:
            temporary.unlink(missing_ok=True)


def read_state(file: Path) -> tuple[Any, dict[str, torch.Tensor]] | None:
    """Return the record and the tensors that `write_state` wrote; None where there is no file.

    A file that is damaged is removed, with one line on stderr, and counts as none.
    """
    try:
        with safe_open(file, framework="pt") as state:
            stored = state.metadata() or {}
            # Cloned: memory of our own, aligned as it was, instead of a map of the file that the next state replaces.
            tensors = {name: state.get_tensor(name).clone() for name in state.keys()}  # noqa: SIM118 - not a dict
        if stored.get(CHECKSUM) != checksum(stored.get(RECORD, ""), tensors):
            raise ValueError("its checksum does not match")
        return json.loads(stored[RECORD]), tensors
    except FileNotFoundError:
        return None
    except RuntimeError as error:  # torch opens the file a second time, and another run may have removed it by then
        if "No such file" not in str(error):
            raise
        return None
    except (SafetensorError, OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        print(
            f"espalier: {file} is damaged ({reason}) and was removed; this part starts again",
            file=sys.stderr,
            flush=True,
        )
        file.unlink(missing_ok=True)
        return None


def checksum(record: str, tensors: dict[str, torch.Tensor]) -> str:
    """Return a hash of the record and of every tensor's name, dtype, shape and values."""
    total = hashlib.sha256(record.encode())
    for name, tensor in sorted(tensors.items()):
        total.update(f"\0{name}\0{tensor.dtype}\0{list(tensor.shape)}\0".encode())
        total.update(tensor.cpu().reshape(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()
