"""Variants on this machine: each is a `dvc exp run` in a clone of its own."""

import os
import signal
import subprocess
import sys
from contextlib import AbstractContextManager, nullcontext

from studies.experiments import check_identity
from studies.study import Study, Variant
from studies.workspace import Workspace


class LocalExecutor:
    """Run a study's experiments from the commit `baseline`, `jobs` at a time, with the `gpus` dealt out in turn."""

    def __init__(self, study: Study, baseline: str, jobs: int, gpus: list[str]):
        self.study, self.baseline, self.jobs, self.gpus = study, baseline, jobs, gpus
        self.workers: dict[int, LocalRun] = {}  # by number, from 0 to jobs - 1

    def prepare(self) -> None:
        """Say so when the workers want more CPU threads than there are cores; params are not changed for that.

        Raises UserError where git has nobody to commit as.
        """
        check_identity()
        threads = max(variant.params["run"]["threads"] for variant in self.study.experiments)
        cores = len(os.sched_getaffinity(0))
        if self.jobs > 1 and self.jobs * threads > cores:
            print(
                f"{self.jobs} jobs of run.threads = {threads} share {cores} cores; fewer threads per job may be "
                "faster, but are other results: every result is bit-identical for one number of threads only",
                file=sys.stderr,
            )

    def run_of(self, variant: Variant) -> "LocalRun":
        """Return the run of a variant."""
        return LocalRun(variant, self)

    def batch(self) -> AbstractContextManager[None]:
        """Return a context that does nothing."""
        return nullcontext()

    def environment(self, run: "LocalRun") -> dict[str, str]:
        """Give the run a free worker's number and return the environment that pins it to that worker's GPU."""
        worker = min(set(range(self.jobs)) - set(self.workers))
        self.workers[worker] = run
        return {"CUDA_VISIBLE_DEVICES": self.gpus[worker % len(self.gpus)]} if self.gpus else {}


class LocalRun(Workspace):
    """A variant in its workspace, run by `process`."""

    process: subprocess.Popen

    def __init__(self, variant: Variant, executor: LocalExecutor):
        super().__init__(variant, executor.baseline)
        self.executor = executor

    def start(self, needed: str | None) -> None:
        """Start the experiment in a clone."""
        self.process = self.launch(self.executor.environment(self), needed)

    def ended(self) -> bool:
        """Return whether the process has ended; its worker is free then."""
        if self.process.poll() is None:
            return False
        self.executor.workers = {number: run for number, run in self.executor.workers.items() if run is not self}
        return True

    def interrupt(self) -> None:
        """Stop DVC and its stage; training resumes from its checkpoint when the variant runs again."""
        os.killpg(self.process.pid, signal.SIGINT)

    def kill(self, seconds: float) -> None:
        """End what has not ended in time."""
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
