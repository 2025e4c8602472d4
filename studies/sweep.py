"""python -m studies.sweep STUDY [--executor local] [--jobs N] [--gpus 0,1]: run the missing variants of a study.

Each variant is a DVC experiment. The executor runs them: on this machine (local) or on a cluster (ray, slurm).
"""

import argparse
import time
from dataclasses import dataclass, field
from pathlib import Path

from stages.common.stage import FAILURE, run
from studies.executors.choose import EXECUTORS, new_executor
from studies.executors.protocol import Executor, Run
from studies.experiments import baseline, find_experiments
from studies.live import LivePage
from studies.progress import Progress
from studies.study import Study, Variant, load_study
from studies.workspace import FOLDER

POLL_SECONDS = 0.2
GRACE_SECONDS = 10


@dataclass
class Job:
    """A run and when it was started."""

    run: Run
    started: float = field(default_factory=time.monotonic)


class Sweep:
    """Run the experiments of a study by an executor, each after the one that it needs."""

    def __init__(self, study: Study, executor: Executor, progress: Progress):
        self.study, self.executor, self.progress = study, executor, progress
        self.done = set(find_experiments(study.experiments))
        self.failed: dict[str, str] = {}
        self.running: list[Job] = []
        self.needs = {each.name: study.needs(each) for each in study.experiments}  # its hashes are too slow for a poll
        needed = list(self.needs.values())
        missing = [each for each in study.experiments if each.name not in self.done]
        self.waiting = sorted(missing, key=lambda each: -needed.count(each))  # what others need goes first
        self.page = LivePage(study.name, FOLDER / f"{study.name}-page.log")

    def run(self) -> None:
        """Return when every experiment is done or has failed."""
        self.progress.begin(self.done, self.waiting)
        try:
            while self.waiting or self.running:
                self.finish_jobs()
                with self.executor.batch():
                    self.start_jobs()
                states = [(job.run.variant, job.started, job.run.stage()) for job in self.running]
                self.progress.show(states, self.waiting)
                self.page.proceed()
                time.sleep(POLL_SECONDS)
            if self.page.finish():
                self.progress.say(f"page: {self.page.path}")
        finally:
            self.page.stop()
            self.stop_jobs()
            self.progress.end()

    def start_jobs(self) -> None:
        """Start waiting variants on free workers."""
        for variant in list(self.waiting):
            needed = self.needs[variant.name]
            if needed and needed.name in self.failed:
                self.waiting.remove(variant)
                self.fail(variant, f"not run, since it needs {needed.label}")
            elif (needed is None or needed.name in self.done) and len(self.running) < self.executor.jobs:
                self.start_job(variant)

    def start_job(self, variant: Variant) -> None:
        """Start one variant, unless another sweep has it or has finished it."""
        run = self.executor.run_of(variant)
        if not run.claim():
            return
        self.waiting.remove(variant)
        if run.collect():
            run.release()
            self.done.add(variant.name)
            self.progress.finished(variant, None)
            self.write_page()
            return
        needed = self.needs[variant.name]
        run.start(find_experiments([needed])[needed.name] if needed else None)
        self.running.append(Job(run))

    def finish_jobs(self) -> None:
        """Take in the experiments that have ended."""
        for job in [job for job in self.running if job.run.ended()]:
            self.running.remove(job)
            variant = job.run.variant
            made = job.run.collect()
            job.run.release()
            if made:
                self.done.add(variant.name)
                self.progress.finished(variant, time.monotonic() - job.started)
                self.write_page()
            else:
                self.fail(variant, job.run.reason())

    def fail(self, variant: Variant, reason: str) -> None:
        """Note why a variant is not there."""
        self.failed[variant.name] = reason
        self.progress.failed(variant, reason)
        self.write_page()

    def write_page(self) -> None:
        """Have the study's page written again, once a variant is there that it can compare with the base."""
        if any(variant.name in self.done for variant in self.study.variants):
            labels = {each.name: each.label for each in self.study.experiments}
            running = {job.run.variant.label: job.run.stage() for job in self.running}
            failed = {labels[name]: reason for name, reason in self.failed.items()}
            self.page.update({"running": running, "failed": failed})

    def stop_jobs(self) -> None:
        """Stop the running variants; the next sweep runs them again, and training resumes."""
        for job in self.running:
            job.run.interrupt()
        for job in self.running:
            job.run.kill(GRACE_SECONDS)


def main() -> int:
    """Run the sweep and return the exit code: 0 when all is there, 1 when something failed."""
    parser = argparse.ArgumentParser(prog="python -m studies.sweep", description=__doc__)
    parser.add_argument("study", type=Path, help="studies/<name>.yaml")
    parser.add_argument("--executor", choices=EXECUTORS, default="local", help="where they run; cluster.yaml says more")
    parser.add_argument("--jobs", type=positive, help="experiments at a time; default: one per GPU named, else one")
    parser.add_argument("--gpus", type=names, default=[], help="CUDA devices, dealt out to the workers in turn: 0,1")
    arguments = parser.parse_args()
    study, start = load_study(arguments.study), baseline()
    executor = new_executor(arguments.executor, arguments.study, study, start, arguments.jobs, arguments.gpus)
    executor.prepare()
    sweep = Sweep(study, executor, Progress(len(study.experiments), executor.jobs))
    sweep.run()
    for name, reason in sweep.failed.items():
        print(f"failed: {name}: {reason}")
    if sweep.failed:
        print(f"the whole output of each is in {FOLDER}/<name>.log; the same command tries the failed ones again")
    return FAILURE if sweep.failed else 0


def positive(text: str) -> int:
    """Return a number of jobs."""
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not allowed; expected a whole number, 1 or more")
    return int(text)


def names(text: str) -> list[str]:
    """Return the GPUs of a list like 0,1."""
    return [name.strip() for name in text.split(",") if name.strip()]


if __name__ == "__main__":
    run("sweep", main, "the same command goes on with what is missing")
