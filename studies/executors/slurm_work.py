"""What a Slurm job runs. It imports little: submitit loads it on the compute node before the worker starts."""

import signal
import subprocess
import time
from pathlib import Path

from submitit.helpers import DelayedSubmission

LOST = -1  # the exit code of a worker that was killed
INTERRUPTED = 130
GRACE_SECONDS = 90


class Work:
    """Run the worker and write its exit code; submitit calls `checkpoint` before it requeues the job."""

    def __init__(self, command: list[str], code_file: Path):
        self.command, self.code_file = command, code_file
        self.process: subprocess.Popen | None = None

    def __call__(self) -> int:
        """Run the worker."""
        self.process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL)
        code = self.process.wait()
        if code == INTERRUPTED:  # Slurm is about to end this job, and requeues it if it was preempted
            time.sleep(GRACE_SECONDS)
        partial = self.code_file.with_suffix(".partial")
        partial.write_text(str(code if code >= 0 else LOST))
        partial.rename(self.code_file)
        return code

    def checkpoint(self) -> DelayedSubmission:
        """End the worker, which keeps where it is, and return the same work."""
        if self.process:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait()
        return DelayedSubmission(Work(self.command, self.code_file))
