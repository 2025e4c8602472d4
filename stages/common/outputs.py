"""Write outputs whole or not at all."""

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def staged(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path next to `path`; rename it to `path` on success, remove it on an error.

    Works for a file and for a folder. What a killed process left behind is removed by the next one.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.partial")
    remove(temporary)
    try:
        yield temporary
        remove(path)
        temporary.rename(path)
    finally:
        remove(temporary)


def remove(path: Path) -> None:
    """Delete a file or a folder if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def write_metrics(path: str | Path, metrics: dict[str, int | float]) -> None:
    """Write a flat metrics JSON: names to numbers, as `dvc metrics` reads it."""
    for name, value in metrics.items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise TypeError(f"metric {name} = {value!r} is not a number")
    write_details(path, metrics)


def write_details(path: str | Path, details: Mapping[str, Any]) -> None:
    """Write details, which reports read besides the metrics, as a JSON object of finite numbers, texts, lists."""
    with staged(path) as temporary:
        temporary.write_text(json.dumps(details, indent=2, allow_nan=False) + "\n", encoding="utf-8")
