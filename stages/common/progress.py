"""Show progress: a bar on a terminal, a line every ten percent elsewhere, each with the values measured so far.

All stages use these, so that logs in files stay short.
"""

import sys
import time
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Self, TypeVar

from tqdm import tqdm

Item = TypeVar("Item")

QUIET_SECONDS = 10.0  # where there is no terminal, no line before this


class Bar:
    """Counts pieces of work on stderr. Use it as a context manager: after an error it prints no line."""

    def __init__(self, description: str, total: int, done: int = 0):
        """Start at `done` of `total` pieces, those that an interrupted run has left."""
        self.description, self.total, self.done, self.first = description, total, done, done
        self.started, self.tenths = time.monotonic(), 10 * done // max(1, total)
        self.bar = None
        if sys.stderr.isatty():
            # `disable` as an argument, since TQDM_DISABLE may silence the bars of libraries.
            # Of nested bars only the outermost stays when it ends.
            self.bar = tqdm(desc=description, total=total, initial=done, dynamic_ncols=True, leave=None, disable=False)

    def __enter__(self) -> Self:
        """Return the bar."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None):
        """Leave the terminal's line."""
        if self.bar is not None:
            self.bar.close()

    def advance(self, count: int = 1, measured: str = "") -> None:
        """Count `count` more pieces; `measured` is the value so far, such as `loss 2.31`."""
        self.done += count
        if self.bar is not None:
            self.bar.set_postfix_str(measured, refresh=False)
            self.bar.update(count)
            return
        seconds, tenths = time.monotonic() - self.started, 10 * self.done // max(1, self.total)
        if tenths > self.tenths and seconds >= QUIET_SECONDS:
            self.tenths = tenths
            print(self.line(seconds, measured), file=sys.stderr, flush=True)

    def line(self, seconds: float, measured: str) -> str:
        """Return the state after `seconds` as one line."""
        left = (self.total - self.done) * seconds / max(1, self.done - self.first)
        parts = [
            f"{self.description}: {10 * self.tenths} % ({self.done} of {self.total})",
            *([measured] if measured else []),
            f"{tqdm.format_interval(seconds)} elapsed",
            f"{tqdm.format_interval(left)} left",
        ]
        return ", ".join(parts)


def progress(items: Sequence[Item], description: str) -> Iterator[Item]:
    """Yield `items` and show how many of them are done."""
    with Bar(description, len(items)) as bar:
        for item in items:
            yield item
            bar.advance()
