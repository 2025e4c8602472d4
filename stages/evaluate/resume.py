"""Save an evaluation's results so far, to resume it: those of each batch of a text or task, and a task's scores."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from stages.common import processes
from stages.common.resume import read_state, write_state

SAVE_EVERY_SECONDS = 5


class Kept:
    """The results of batches that are measured in a fixed order, in a file that is written every few seconds.

    A result is JSON. A run that finds the file continues after its last result and ends as one that measured them all.
    Of several processes, each keeps the results of its share of the batches.
    """

    def __init__(self, file: Path | None = None):
        """Read the results of an interrupted run from `file`; without a file, results last for this run only."""
        if file and processes.size() > 1 and not processes.repeated:
            file = file.with_name(f"{file.name} {processes.rank()}")
        self.file = file
        state = read_state(file) if file else None
        self.results: list[Any] = state[0] if state else []
        self.saved = time.monotonic()

    def add(self, result: Any) -> None:
        """Keep the result of the next batch."""
        self.results.append(result)
        if time.monotonic() - self.saved >= SAVE_EVERY_SECONDS:
            self.save()

    def save(self) -> None:
        """Write all results so far."""
        if self.file and (processes.is_first() or not processes.repeated):
            write_state(self.file, self.results)
        self.saved = time.monotonic()

    def collect(self) -> list[Any]:
        """Save the results and return those of all processes, in the order of all batches."""
        self.save()
        return processes.collect(self.results)


def remember(file: Path, measure: Callable[[], Any]) -> Any:
    """Return the result of `measure`, or the one that an interrupted run left in `file`.

    It has to be JSON, and passes through it either way, so a run that was interrupted ends as one that was not.
    """
    state = read_state(file)
    if state:
        return state[0]
    measured = measure()
    if processes.is_first():
        write_state(file, measured)
    return json.loads(json.dumps(measured))
