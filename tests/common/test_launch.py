"""Several processes of one stage: what they exchange, and how they end when one fails."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from forks import forking_python
from helpers import ROOT

from stages.common.errors import UserError
from stages.common.launch import check_count
from stages.common.params import RunParams

STAGE = """
import os, signal, sys, time
from pathlib import Path
import torch
from stages.common import processes
from stages.common.errors import UserError
from stages.common.launch import run_parallel_stage

class ToldToEnd(ValueError):
    def __str__(self):
        os.kill(os.getpid(), signal.SIGTERM)  # as the command does, once it sees another failure
        return "no such unit"

def stage():
    mine = processes.share(list("abcde"))
    Path(f"pid{processes.rank()}").write_text(f"{os.getpid()}\\n{mine}")
    assert processes.collect(mine) == list("abcde")
    total = processes.add_up(torch.tensor([processes.rank() + 1.0]))
    used, unused = torch.zeros(2, requires_grad=True), torch.zeros(3, requires_grad=True)
    if processes.rank():
        (3 * used).sum().backward()
    processes.add_up_gradients([used, unused])
    mode = sys.argv[1]
    if mode == "works" and processes.is_first():
        Path("out").write_text(f"{total.item()} {used.grad.tolist()} {unused.grad.tolist()}")
    if mode == "mistake" or (mode == "error" and not processes.is_first()):
        raise UserError("a.b = 1 is not allowed") if mode == "mistake" else ValueError("no such unit")
    if mode == "told to end" and not processes.is_first():
        raise ToldToEnd
    if mode == "killed" and not processes.is_first():
        os.kill(os.getpid(), signal.SIGKILL)
    if mode != "works":
        print("waiting", flush=True)
        processes.add_up(torch.zeros(1))
        time.sleep(60)

run_parallel_stage("tune", stage)
"""
FAILURES = {
    "mistake": (2, "a.b = 1 is not allowed"),
    "error": (1, "ValueError: no such unit (ESPALIER_TRACEBACK=1 shows where)"),
    "told to end": (1, "ToldToEnd: no such unit (ESPALIER_TRACEBACK=1 shows where)"),
    "killed": (
        1,
        "process 1 of 2 was killed by SIGKILL, perhaps for memory; `dvc repro` continues from here",
    ),
}


@pytest.fixture
def start(tmp_path):
    """Return a function that starts a stage of two processes."""
    run = {"device": "cpu", "threads": 1, "precision": "float32", "processes": 2, "sharded": False}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump({"run": run}))
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return lambda mode, python=None: subprocess.Popen(
        [python or forking_python(), "-c", STAGE, mode], cwd=tmp_path, env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


@pytest.mark.slow
def test_two_processes_share_and_add_up(tmp_path, start):
    stage = start("works")
    assert (stage.communicate()[1], stage.returncode) == ("", 0)
    assert (tmp_path / "out").read_text() == "3.0 [3.0, 3.0] [0.0, 0.0, 0.0]"
    shares = [(tmp_path / f"pid{rank}").read_text().split("\n")[1] for rank in (0, 1)]
    assert shares == ["['a', 'c', 'e']", "['b', 'd']"]
    assert (tmp_path / "metrics/runtime/tune.json").is_file()


def test_a_launcher_that_starts_another_number_of_processes_is_refused():
    run = {"device": "cpu", "threads": 1, "precision": "float32", "sharded": False}
    for processes in ("auto", 2):
        check_count(RunParams(processes=processes, **run), 2)
    with pytest.raises(UserError, match=r"run.processes = 1, but 2 processes were started; expected 2"):
        check_count(RunParams(processes=1, **run), 2)


@pytest.mark.slow
@pytest.mark.parametrize("mode", FAILURES)
def test_an_error_in_one_process_ends_all_with_one_line(tmp_path, start, mode):
    # The end of a fork is noticed later than that of a process, and the other process fails by itself meanwhile.
    stage = start(mode, sys.executable if mode == "killed" else None)
    _, stderr = stage.communicate(timeout=60)
    code, line = FAILURES[mode]
    assert [each for each in stderr.splitlines() if "espalier" in each] == [f"espalier: tune: {line}"]
    assert "Traceback" not in stderr
    assert stage.returncode == code
    assert gone(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 130), (signal.SIGKILL, -signal.SIGKILL)])
def test_the_processes_end_with_the_command(tmp_path, start, number, code):
    stage = start("waits", sys.executable)
    assert stage.stdout.readline() == "waiting\n"
    stage.send_signal(number)
    assert stage.wait(30) == code
    said = stage.stderr.read() if number == signal.SIGTERM else ""
    assert said == ("espalier: tune: interrupted; `dvc repro` continues from here\n" if said else "")
    assert gone(tmp_path)


def gone(folder) -> bool:
    """Return whether both processes end within seconds."""
    left = [int((folder / f"pid{rank}").read_text().split()[0]) for rank in (0, 1)]
    deadline = time.monotonic() + 20
    while left and time.monotonic() < deadline:
        left = [pid for pid in left if alive(pid)]
        time.sleep(0.1)
    return not left


def alive(pid: int) -> bool:
    """Return whether a process runs; one that has ended, and that nobody has waited for, does not."""
    try:
        with Path(f"/proc/{pid}/stat").open() as status:
            return status.read().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
