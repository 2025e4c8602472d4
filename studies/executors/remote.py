"""What Ray and Slurm have in common: a variant is one `studies.worker` on another machine.

The code travels by the git remote, models and data by the DVC remote. A run that ends without a word, or interrupted,
is started again; one that fails is not.
"""

import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from stages.common.errors import UserError
from stages.common.stage import INTERRUPTED
from studies import worker
from studies.exchange import ATTEMPTS, PAUSE_SECONDS, fetch_experiments, fetch_metrics, offer_experiments
from studies.executors.checks import check_git, check_storage, repository_url, storage_beside_commit
from studies.executors.settings import ClusterSettings
from studies.experiments import find_experiments
from studies.git import git, run_git
from studies.study import Study, Variant
from studies.workspace import Claimed

LOST = -1  # the exit code of a worker that ended without giving one
POLL_SECONDS = 0.5


class RemoteExecutor(ABC):
    """Runs variants by workers elsewhere. A subclass submits them and says how they ended."""

    jobs: int
    default_python: str | None = None  # where cluster.yaml names none

    def __init__(self, file: Path, study: Study, baseline: str, settings: ClusterSettings):
        self.file, self.study, self.baseline, self.settings = file, study, baseline, settings
        self.new: list[RemoteRun] = []  # started in a batch that has not ended

    @abstractmethod
    def connect(self) -> str:
        """Connect to the cluster and return a line that says to which; UserError where it cannot be reached."""

    @abstractmethod
    def submit(self, runs: "list[RemoteRun]") -> None:
        """Submit the runs' commands and set their `ticket`."""

    @abstractmethod
    def exit_code(self, run: "RemoteRun") -> int | None:
        """Return the worker's exit code, with its output in `run.log`; LOST if it has none, None before the end."""

    @abstractmethod
    def cancel(self, run: "RemoteRun") -> None:
        """End the run."""

    def run_of(self, variant: Variant) -> "RemoteRun":
        """Return the run of a variant."""
        return RemoteRun(variant, self)

    @contextmanager
    def batch(self) -> Iterator[None]:
        """Submit together what is started in the context."""
        yield
        new, self.new = self.new, []
        if new:
            self.submit(new)

    def prepare(self) -> None:
        """Check what workers need, a line for each: the study in the commit, both remotes writable, the cluster."""
        if run_git("diff", "--quiet", self.baseline, "--", str(self.file)).returncode or not git(
            "ls-files", str(self.file)
        ):
            raise UserError(f"{self.file} is not as in the last commit, where workers read it; commit it first")
        print(check_git(self.settings.git_remote, self.baseline))
        print(check_storage())
        print(self.connect(), flush=True)
        fetch_experiments(self.settings.git_remote, self.study.experiments)
        needed = {each.name: each for each in map(self.study.needs, self.study.experiments) if each}
        offer_experiments(repository_url(self.settings.git_remote), list(needed.values()))

    def arguments(self, variant: Variant) -> list[str]:
        """Return the arguments of `studies.worker` for a variant."""
        remote, python = self.settings.git_remote, self.settings.python or self.default_python
        project, storage = git("rev-parse", "--show-prefix"), storage_beside_commit(self.baseline)
        return [
            self.file.as_posix(), variant.name, "--repository", repository_url(remote), "--commit", self.baseline,
            "--folder", self.settings.folder,
            *(["--python", python] if python else []),
            *(["--project", project] if project else []),
            *(["--remote", storage] if storage else []),
        ]  # fmt: skip


class RemoteRun(Claimed):
    """A variant on a cluster, which knows it by `ticket`."""

    ticket: Any = None

    def __init__(self, variant: Variant, executor: RemoteExecutor):
        super().__init__(variant)
        self.executor = executor
        self.attempts, self.code, self.polled = 0, LOST, 0.0
        self.problem = "it is not on the git remote"  # where the worker says that it is done

    def collect(self) -> bool:
        """Return whether the experiment is here, fetched from the git remote with its metrics if a worker ran it."""
        if self.attempts:
            try:
                self.fetch()
            except UserError as error:
                self.problem = str(error)
        return self.variant.name in find_experiments([self.variant])

    def fetch(self) -> None:
        """Fetch the experiment and what it measured; UserError where git fails three times."""
        for attempt in range(1, ATTEMPTS + 1):
            try:
                found = fetch_experiments(self.executor.settings.git_remote, [self.variant])
                break
            except UserError:
                if attempt == ATTEMPTS:
                    raise
                time.sleep(PAUSE_SECONDS)
        if self.variant.name in found:
            fetch_metrics(self.variant, found[self.variant.name])

    def start(self, needed: str | None) -> None:
        """Submit the variant when the batch ends; the worker finds what it needs on the remote."""
        self.attempts += 1
        self.log.write_text("", encoding="utf-8")
        self.executor.new.append(self)

    def ended(self) -> bool:
        """Return whether the worker has ended; start it again where it died or was interrupted."""
        if self.ticket is None or time.monotonic() - self.polled < POLL_SECONDS:
            return False
        self.polled = time.monotonic()
        code = self.executor.exit_code(self)
        if code is None:
            return False
        self.code = code
        if code in (LOST, INTERRUPTED) and self.attempts <= self.executor.settings.retries:
            self.attempts += 1
            self.executor.submit([self])
            return False
        return True

    def reason(self) -> str:
        """Return why the worker ended without an experiment, by its last line."""
        last = super().reason().removeprefix(f"worker: {self.variant.name}: ").removeprefix("failed: ")
        if self.code in (LOST, INTERRUPTED):
            return f"its worker died {self.attempts} times; its last line: {last}"
        return last if self.code else f"{last}; the same command fetches it, since here {self.problem}"

    def interrupt(self) -> None:
        """End it."""
        if self.ticket is not None:
            self.executor.cancel(self)

    def kill(self, seconds: float) -> None:
        """The cluster ends what does not end by itself."""


def worker_source() -> str:
    """Return the text of `studies.worker`, which needs nothing else of this repository."""
    return Path(worker.__file__).read_text(encoding="utf-8")
