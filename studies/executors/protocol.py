"""What a sweep asks of an executor; what a user sees is the sweep's, and so the same for all of them."""

from contextlib import AbstractContextManager
from typing import Protocol

from studies.study import Variant


class Run(Protocol):
    """One variant, from its claim to its end."""

    variant: Variant

    def claim(self) -> bool:
        """Return whether the variant is ours to run; no other sweep of this repository is on it then."""

    def release(self) -> None:
        """Let other sweeps have the variant."""

    def collect(self) -> bool:
        """Return whether this repository has the experiment, after fetching it from where it ran."""

    def start(self, needed: str | None) -> None:
        """Start the claimed variant, from the results of the commit `needed` if there is one."""

    def ended(self) -> bool:
        """Return whether it has ended, well or not."""

    def stage(self) -> str:
        """Return what it is doing: a stage's name while one runs."""

    def reason(self) -> str:
        """Return in one line why it ended without an experiment."""

    def interrupt(self) -> None:
        """Ask it to end."""

    def kill(self, seconds: float) -> None:
        """Wait for its end, at most so long, and then end it."""


class Executor(Protocol):
    """Runs variants, at most `jobs` at a time."""

    jobs: int

    def prepare(self) -> None:
        """Check that variants can be run, and print a line for each check; UserError where they cannot."""

    def run_of(self, variant: Variant) -> Run:
        """Return the run of a variant, neither claimed nor started."""

    def batch(self) -> AbstractContextManager[None]:
        """Return a context: the runs that are started in it are submitted together when it ends."""
