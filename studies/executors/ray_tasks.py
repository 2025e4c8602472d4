"""Variants as tasks of a Ray cluster: a head node, KubeRay, or one that `ray up` has started.

A task ships the worker's source and nothing else: no runtime_env, no upload of the work tree, no import of this
project on the nodes.
"""

from collections.abc import Callable
from pathlib import Path

import ray
from ray.exceptions import RayError

from stages.common.errors import UserError, one_line
from studies.executors.remote import LOST, RemoteExecutor, RemoteRun, worker_source
from studies.executors.settings import load_settings
from studies.study import Study


class RayExecutor(RemoteExecutor):
    """Runs variants as Ray tasks; a task whose node dies is started again on another by Ray."""

    def __init__(self, file: Path, study: Study, baseline: str, jobs: int | None):
        super().__init__(file, study, baseline, load_settings())
        self.jobs, self.chosen = jobs or 1, jobs is not None

    def connect(self) -> str:
        """Connect; without --jobs as many variants run at a time as the cluster has room for now."""
        address, cpus, gpus = self.settings.ray.address, self.settings.ray.cpus, self.settings.ray.gpus
        try:
            ray.init(address=address, log_to_driver=False, logging_level="ERROR")
        except Exception as error:  # Ray raises RuntimeError, ConnectionError, ValueError and its own
            raise UserError(
                f"cluster.yaml: ray.address = {address} cannot be reached: {one_line(str(error))}"
            ) from error
        total = ray.cluster_resources()
        room = int(min(total.get("CPU", 0) / cpus, total.get("GPU", 0) / gpus if gpus else float("inf")))
        self.jobs = self.jobs if self.chosen else max(1, room)
        task = ray.remote(worker_task())
        self.task = task.options(num_cpus=cpus, num_gpus=gpus, max_retries=self.settings.retries)
        return f"Ray cluster {address}: {len(ray.nodes())} nodes, room for {room} variants at a time"

    def submit(self, runs: list[RemoteRun]) -> None:
        """Submit a task for each run."""
        for run in runs:
            run.ticket = self.task.remote(worker_source(), self.arguments(run.variant))

    def exit_code(self, run: RemoteRun) -> int | None:
        """Return the exit code that the task returned; LOST where Ray gave it up."""
        ready, _ = ray.wait([run.ticket], timeout=0)
        if not ready:
            return None
        try:
            code, output = ray.get(run.ticket)
        except RayError as error:
            code, output = LOST, one_line(str(error))
        run.log.write_text(output, encoding="utf-8")
        return code

    def cancel(self, run: RemoteRun) -> None:
        """Interrupt the task."""
        ray.cancel(run.ticket)


def worker_task() -> Callable[[str, list[str]], tuple[int, str]]:
    """Return the function that runs the worker on a node. Ray ships a nested function by value, with all it needs."""

    def run_worker(source: str, arguments: list[str]) -> tuple[int, str]:
        import ctypes
        import os
        import signal
        import subprocess
        import sys

        def end_with_ray() -> None:
            ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG: Ray may kill this process without a word

        # Ray sets OMP_NUM_THREADS; a local run has it from the user's shell alone.
        environment = {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"}
        process = subprocess.Popen(
            [sys.executable, "-c", source, *arguments], env=environment, text=True, errors="replace",
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, preexec_fn=end_with_ray,
        )  # fmt: skip
        try:
            output, _ = process.communicate()
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait()
        return process.returncode if process.returncode >= 0 else -1, output

    return run_worker
