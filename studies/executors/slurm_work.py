"""What a Slurm job runs. It imports little: submitit loads it on the compute node before the worker starts."""

import os
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

from submitit.core.utils import UncompletedJobError
from submitit.helpers import DelayedSubmission

LOST = -1  # the exit code of a worker that was killed
FAILURE, INTERRUPTED = 1, 130
GRACE_SECONDS = 90


class Work:
    """Run the worker and write its exit code; submitit calls `checkpoint` before it requeues the job.

    `limit` is the last line where the job reached its time limit as often as it may.
    """

    def __init__(self, command: list[str], code_file: Path, limit: str):
        self.command, self.code_file, self.limit = command, code_file, limit
        self.process: subprocess.Popen | None = None

    def __call__(self) -> int:
        """Run the worker."""
        self.process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL)
        try:
            self.wait()
            code = self.process.wait()
        except UncompletedJobError:  # submitit does not requeue the job again
            print(self.limit, flush=True)
            code = FAILURE
        if code == INTERRUPTED:  # Slurm is about to end this job, and requeues it if it was preempted
            time.sleep(GRACE_SECONDS)
        partial = self.code_file.with_suffix(".partial")
        partial.write_text(str(code if code >= 0 else LOST))
        partial.rename(self.code_file)
        return code

    def checkpoint(self) -> DelayedSubmission:
        """End the worker, which keeps where it is, and return the same work."""
        if self.process and self.process.returncode is None:
            self.process.send_signal(signal.SIGTERM)
            self.wait()
        return DelayedSubmission(Work(self.command, self.code_file, self.limit))

    def wait(self) -> None:
        """Wait until the worker has ended.

        `checkpoint` runs in a signal handler, inside the wait of `__call__`; Popen.wait holds a lock, and would never
        return there.
        """
        assert self.process is not None
        with suppress(ChildProcessError):  # its end has been taken note of
            os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOWAIT)
