"""Variants as jobs of a Slurm cluster, submitted by submitit; what can start together is one job array.

The compute nodes have to see this repository and its environment at the same paths, as they do in a shared home.
"""

import subprocess
import sys
import time
from pathlib import Path

import submitit

from stages.common.errors import UserError, one_line
from studies import worker
from studies.executors.remote import LOST, RemoteExecutor, RemoteRun
from studies.executors.settings import load_settings
from studies.executors.slurm_work import GRACE_SECONDS, Work
from studies.study import Study
from studies.workspace import FOLDER

LOOK_SECONDS, LOST_SECONDS = 5, 15


class SlurmExecutor(RemoteExecutor):
    """Runs variants as Slurm jobs. A job's number is kept beside the log: a sweep that was killed finds it again."""

    default_python = sys.executable

    def __init__(self, file: Path, study: Study, baseline: str, jobs: int | None):
        super().__init__(file, study, baseline, load_settings())
        self.jobs = jobs or self.settings.slurm.array
        self.folder = FOLDER.resolve() / "slurm"
        self.queue: dict[str, str] = {}  # state by job number
        self.looked = float("-inf")
        self.seen: dict[str, float] = {}  # when a job was last in the queue

    def connect(self) -> str:
        """Ask for the queue, and set up submitit."""
        slurm = self.settings.slurm
        self.look()
        self.submitter = submitit.SlurmExecutor(self.folder, max_num_timeout=self.settings.retries)
        options = {
            "partition": slurm.partition, "gpus_per_node": slurm.gpus or None, "cpus_per_task": slurm.cpus,
            "time": slurm.minutes, "array_parallelism": slurm.array, "job_name": f"espalier-{self.study.name}",
            "stderr_to_stdout": True, "signal_delay_s": GRACE_SECONDS,
            "additional_parameters": {"requeue": True, **slurm.options},
        }  # fmt: skip
        self.submitter.update_parameters(**{key: value for key, value in options.items() if value is not None})
        return f"Slurm partition {slurm.partition or '(default)'}: {len(self.queue)} jobs of yours in the queue"

    def look(self) -> None:
        """Ask Slurm for this user's jobs, at most every few seconds."""
        if time.monotonic() - self.looked < LOOK_SECONDS:
            return
        command = ["squeue", "--me", "--noheader", "--array", "--format=%i %T"]
        try:
            done = subprocess.run(command, text=True, capture_output=True)
        except FileNotFoundError:
            raise UserError("squeue is not on PATH; run the sweep on a machine that submits to Slurm") from None
        if done.returncode and not self.seen:
            raise UserError(f"Slurm cannot be reached: {one_line(done.stderr) or 'squeue gave no reason'}")
        self.looked = time.monotonic()
        if done.returncode:  # the controller is away for a while: every job may still run
            self.seen = dict.fromkeys(self.seen, self.looked)
            return
        self.queue = dict(line.split() for line in done.stdout.splitlines())
        self.seen |= dict.fromkeys(self.queue, self.looked)

    def submit(self, runs: list[RemoteRun]) -> None:
        """Submit the runs as one array; of a run that a killed sweep submitted, find the job."""
        self.looked = float("-inf")
        self.look()
        self.folder.mkdir(parents=True, exist_ok=True)
        found = {run: self.number_file(run).read_text() for run in runs if self.number_file(run).is_file()}
        new = [run for run in runs if found.get(run) not in self.queue]
        works = [
            Work([sys.executable, worker.__file__, *self.arguments(run.variant)], self.code_file(run), self.limit(run))
            for run in new
        ]
        for run in new:
            self.code_file(run).unlink(missing_ok=True)
        try:
            jobs = self.submitter.submit_array(works) if works else []
        except Exception as error:  # submitit raises its own, and what sbatch ends with
            raise UserError(f"sbatch refused the jobs: {one_line(str(error))}") from error
        for run, job in zip(new, jobs, strict=True):
            self.number_file(run).write_text(job.job_id)
        for run in runs:
            run.ticket = submitit.SlurmJob(self.folder, self.number_file(run).read_text())
            self.seen[run.ticket.job_id] = time.monotonic()

    def exit_code(self, run: RemoteRun) -> int | None:
        """Return the code that the job wrote; LOST where it left the queue without."""
        self.look()
        number, output = run.ticket.job_id, run.ticket.paths.stdout
        code = int(self.code_file(run).read_text()) if self.code_file(run).is_file() else None
        if output.is_file():  # after the code, so that it is whole where there is one
            run.log.write_text(output.read_text(errors="replace"), encoding="utf-8")
        if code is not None:
            return code
        return LOST if time.monotonic() - self.seen[number] > LOST_SECONDS else None

    def cancel(self, run: RemoteRun) -> None:
        """Cancel the job."""
        run.ticket.cancel(check=False)

    def limit(self, run: RemoteRun) -> str:
        """Return the last line of a job that reached its time limit as often as it may."""
        attempts, minutes = self.settings.retries + 1, self.settings.slurm.minutes
        return (
            f"espalier: worker: {run.variant.name}: failed: reached its time limit (cluster.yaml: slurm.minutes = "
            f"{minutes}; attempts: {attempts}); the same command resumes it"
        )

    def number_file(self, run: RemoteRun) -> Path:
        """Return the file that keeps the number of the run's job."""
        return self.folder / f"{run.variant.name}.job"

    def code_file(self, run: RemoteRun) -> Path:
        """Return the file that the run's job writes its exit code to."""
        return self.folder / f"{run.variant.name}.code"
