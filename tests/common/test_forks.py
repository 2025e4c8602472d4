"""The `python` that runs a stage in a fork, against the real one: output, errors, exit status, signals, environment."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from forks import forking_python

pytestmark = pytest.mark.slow

SHOW = "import os, sys; print(sys.argv, sys.path[:3], os.getcwd(), os.environ['PYTHONPATH'], sys.stdin.read())"
COMMANDS = [
    ("-c", SHOW, "a", "b c"),
    ("-m", "stages.shown", "a"),
    ("-c", "import sys, atexit; atexit.register(print, 'left'); sys.exit('bad')"),
    ("-c", "import sys; sys.exit(7)"),
    ("-c", "import os; os.kill(os.getpid(), 9)"),
    ("-c", "import sys; sys.stdin.reconfigure(errors='replace'); sys.stdout.reconfigure(errors='replace'); print('é')"),
    ("-c", "import threading, time; threading.Timer(0.2, print, ['last']).start(); print('first')"),
]
WAIT = ("-c", "import os, time; print(os.getpid(), flush=True); time.sleep(600)")


def is_forked(**variables: str) -> bool:
    """Return whether torch is there before anything imports it."""
    environment = os.environ | variables
    code = "import sys; print('torch' in sys.modules)"
    return subprocess.check_output([forking_python(), "-c", code], env=environment, text=True) == "True\n"


@pytest.mark.parametrize("command", COMMANDS)
def test_a_fork_does_what_python_does(tmp_path, command):
    (tmp_path / "stages").mkdir()
    (tmp_path / "stages/shown.py").write_text(SHOW)
    environment = os.environ | {"PYTHONPATH": "/one:/two"}
    done = [
        subprocess.run([python, *command], cwd=tmp_path, env=environment, input="in", capture_output=True, text=True)
        for python in (sys.executable, forking_python())
    ]
    assert [(each.returncode, each.stdout, each.stderr) for each in done[:1]] == [
        (each.returncode, each.stdout, each.stderr) for each in done[1:]
    ]


def test_what_libraries_read_early_is_left_to_the_real_python(monkeypatch):
    monkeypatch.delenv("PYTHONHASHSEED", raising=False)
    assert is_forked() and not is_forked(PYTHONHASHSEED="1") and not is_forked(HOME="/elsewhere")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_signal_ends_the_fork_and_its_client(number):
    with subprocess.Popen([forking_python(), *WAIT], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as client:
        process = int(client.stdout.readline())
        client.send_signal(number)
        assert client.wait() == -number
        assert client.stdout.read() == b""  # which ends when the fork has
    deadline = time.monotonic() + 60
    while Path(f"/proc/{process}").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
