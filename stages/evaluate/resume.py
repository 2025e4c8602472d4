"""Keep what an interrupted evaluation has measured, one file for every text and task."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from stages.common.outputs import staged


def remember(folder: Path, name: str, measure: Callable[[], Any]) -> Any:
    """Return what `measure` returns, from `folder` where an interrupted run left it.

    It has to be JSON, and is read back either way, so a run that was interrupted ends as one that was not.
    """
    file = folder / f"{name}.json"
    if not file.is_file():
        measured = measure()
        with staged(file) as temporary:
            temporary.write_text(json.dumps(measured), encoding="utf-8")
    return json.loads(file.read_text(encoding="utf-8"))
