"""The output of a running sweep: a line for every experiment that ends, and a status line."""

import shutil
import sys
import time
from statistics import mean

from studies.study import Variant

CLEAR_LINE = "\r\x1b[K"


class Progress:
    """Counts and durations of one sweep of `total` experiments, `jobs` at a time."""

    def __init__(self, total: int, jobs: int):
        self.total, self.jobs = total, jobs
        self.done = self.failures = 0
        self.seconds: dict[tuple[str, ...], list[float]] = {}  # of finished experiments, by what they evaluate
        self.started = time.monotonic()
        self.news = False  # said something since the state was last shown

    def begin(self, done: set[str], waiting: list[Variant]) -> None:
        """Print the number of experiments to run."""
        self.done = len(done)
        self.say(f"{self.total} experiments, {len(done)} done, {len(waiting)} to run")

    def finished(self, variant: Variant, seconds: float | None) -> None:
        """Count a finished experiment; `seconds` is None if another sweep made it."""
        self.done += 1
        if seconds is not None:
            self.seconds.setdefault(variant.models, []).append(seconds)
        self.say(f"{variant.label}: {'made by another sweep' if seconds is None else duration(seconds)}")

    def failed(self, variant: Variant, reason: str) -> None:
        """Count a failed experiment."""
        self.failures += 1
        self.say(f"{variant.label}: failed: {reason}")

    def show(self, running: list[tuple[Variant, float, str]], waiting: list[Variant]) -> None:
        """Show the state: all the time on a terminal, after every experiment elsewhere.

        `running` has each variant, when it was started, and the stage that it is in.
        """
        now = time.monotonic()
        left = [self.expected(each) for each in waiting]
        left += [self.expected(each, now - start) for each, start, _ in running]
        known = [seconds for seconds in left if seconds is not None]
        time_left = f"about {duration(sum(known) / self.jobs)} left" if len(known) == len(left) else "time left unknown"
        state = f"{self.counts()}, {len(running)} running, {time_left}"
        if sys.stdout.isatty():
            jobs = (f"{each.label} {stage} {duration(now - start)}" for each, start, stage in running)
            line = "; ".join([state, *jobs])[: shutil.get_terminal_size().columns - 1]
            print(f"{CLEAR_LINE}{line}", end="", flush=True)
        elif self.news and left:
            print(state, flush=True)
        self.news = False

    def expected(self, variant: Variant, spent: float = 0.0) -> float | None:
        """Return the seconds that a variant still takes, by those like it, else all but the base; None without any."""
        others = [seconds for models, each in self.seconds.items() for seconds in each if models != ("base",)]
        like_it = self.seconds.get(variant.models) or others
        return max(0.0, mean(like_it) - spent) if like_it else None

    def counts(self) -> str:
        """Return how many are done and failed, of how many."""
        return f"{self.done}/{self.total} done, {self.failures} failed"

    def say(self, text: str) -> None:
        """Print a line that stays."""
        print(f"{CLEAR_LINE if sys.stdout.isatty() else ''}{text}", flush=True)
        self.news = True

    def end(self) -> None:
        """Print how long it took."""
        self.say(f"{self.counts()}, {duration(time.monotonic() - self.started)} in all")


def duration(seconds: float) -> str:
    """Return seconds in readable form."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
