"""Run a stage in the `run.processes` processes that share its work.

The stage's command starts itself once for each process, with the environment that torchrun and accelerate give theirs:
`torchrun --nproc-per-node 2 -m stages.tune` and `accelerate launch -m stages.tune` do the same. An error in one process
ends all, with one line.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from stages.common.errors import UserError
from stages.common.params import RunParams, load_section
from stages.common.stage import FAILURE, INTERRUPTED, RESUME, accept_any_text, end_on_signals, fail, reason, run_stage

STARTED = "ESPALIER_STARTED"  # in the environment of processes that this module has started
FAILED = "espalier/failed"  # the key of the first failure in the store
GRACE_SECONDS = 10  # from SIGTERM to SIGKILL, for a process that waits inside a collective operation
POLL_SECONDS = 0.05


def run_parallel_stage(name: str, stage: Callable[[], None], shared: Callable[[], bool] = lambda: True) -> None:
    """Call `stage` in each of `run.processes` processes, or if it is not `shared` in one; otherwise as `run_stage`."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        return run_share(name, stage, shared)

    def work() -> None:
        count = number(load_section("run", RunParams)) if shared() else 1
        return stage() if count == 1 else start(name, count)

    run_stage(name, work)


def number(run: RunParams) -> int:
    """Return how many processes `run` wants; UserError for more than there are GPUs, where those are used."""
    if run.processes == 1:
        return 1
    import torch  # a second, which a stage that has nothing to compute need not take

    gpus = 0 if run.device == "cpu" else torch.cuda.device_count()
    if run.processes == "auto":
        return max(1, gpus)
    if gpus and run.processes > gpus:
        raise UserError(f"run.processes = {run.processes} is more than the GPUs of this machine; expected 1 to {gpus}")
    return run.processes


def start(name: str, count: int) -> None:
    """Run this process's command in `count` processes; where one fails, end the others and exit with one line."""
    from torch.distributed import TCPStore

    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    shared = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(store.port),
        "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(count),
        "TORCHELASTIC_USE_AGENT_STORE": "True",  # the store is this process's, not the first one's
        STARTED: "1",
    }
    processes: list[subprocess.Popen] = []
    try:
        for rank in range(count):
            environment = os.environ | shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)}
            command = [sys.executable, *sys.orig_argv[1:]]
            processes.append(subprocess.Popen(command, env=environment, stdin=subprocess.PIPE))
        codes = wait(processes)
    finally:
        end(processes)
    for rank, code in enumerate(codes):
        if code is not None and code < 0:
            what = signal.Signals(-code).name
            fail(name, f"process {rank} of {count} was killed by {what}, perhaps for memory; {RESUME}", FAILURE)
    if store.check([FAILED]):
        message, code = json.loads(store.get(FAILED))
        fail(name, message, code)
    for rank, code in enumerate(codes):
        if code == INTERRUPTED:
            raise KeyboardInterrupt
        if code:
            fail(name, f"process {rank} of {count} ended with exit code {code}", FAILURE)


def wait(processes: list[subprocess.Popen]) -> list[int | None]:
    """Return the exit codes once all processes have ended, or once one has failed: None of those that still run."""
    while True:
        codes = [process.poll() for process in processes]
        if any(codes) or None not in codes:
            return codes
        time.sleep(POLL_SECONDS)


def end(processes: list[subprocess.Popen]) -> None:
    """End those that still run."""
    for process in processes:
        process.terminate()
    deadline = time.monotonic() + GRACE_SECONDS
    for process in processes:
        with suppress(subprocess.TimeoutExpired):
            process.wait(max(0.0, deadline - time.monotonic()))
        process.kill()
        process.wait()


def run_share(name: str, stage: Callable[[], None], shared: Callable[[], bool]) -> None:
    """Call `stage` as one of several processes; exit at once on failure, where the first to fail reports it."""
    from stages.common import processes

    accept_any_text()
    end_on_signals()
    stderr = sys.stderr
    if os.environ["RANK"] != "0":  # all say and show the same
        sys.stdout = sys.stderr = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 - until the process ends
    if STARTED in os.environ:
        threading.Thread(target=end_with_parent, daemon=True).start()
    store = None
    try:
        store = processes.connect()
        check_count(load_section("run", RunParams), processes.size())
        if shared() or processes.is_first():
            stage()
        processes.disconnect()
        return
    except (Exception, KeyboardInterrupt) as error:
        # Another process's failure may end this one at any moment: an interruption here would be a traceback.
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # which SIGTERM raises
        message, code = reason(error, RESUME)
    first = code != INTERRUPTED and store is not None and is_first_failure(store, message, code)
    if first and STARTED not in os.environ:
        print(f"espalier: {name}: {message}", file=stderr, flush=True)
    sys.stdout.flush()
    os._exit(code)  # leaving as usual could wait for the others, who wait for this one


def check_count(run: RunParams, count: int) -> None:
    """Raise UserError unless params.yaml asks for the `count` processes that there are: results depend on it."""
    if run.processes not in ("auto", count):
        raise UserError(f"run.processes = {run.processes}, but {count} processes were started; expected {count}")


def is_first_failure(store, message: str, code: int) -> bool:
    """Record a failure for all to see, unless there is one; return whether there was none."""
    failure = json.dumps([message, code])
    try:
        return store.compare_set(FAILED, "", failure).decode() == failure
    except RuntimeError:  # the store is gone, and with it the process that failed first
        return False


def end_with_parent() -> None:
    """Exit once the process that started this one is gone, which then cannot end it."""
    sys.stdin.read()
    os._exit(FAILURE)
