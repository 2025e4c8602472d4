"""Progress on a terminal and elsewhere, each in a process of its own whose stderr is the one or the other."""

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios

import pytest
from helpers import ROOT

from stages.common import progress
from stages.common.progress import Bar

WORK = """
import time
from stages.common import progress
progress.QUIET_SECONDS = {seconds}
with progress.Bar("perplexity of text", 1000, done={done}) as bar:
    for step in range({done}, 1000):
        bar.advance(measured=f"perplexity {{step + 1}}")
list(progress.progress(range(20), "samples"))
"""


def piped(seconds: float, done: int = 0, environment: dict[str, str] | None = None) -> list[str]:
    """Return the lines that the work writes to a pipe."""
    code = WORK.format(seconds=seconds, done=done)
    command = [sys.executable, "-c", code]
    variables = os.environ | {"PYTHONPATH": str(ROOT)} | (environment or {})
    run = subprocess.run(command, env=variables, capture_output=True, text=True, check=True)
    assert run.stdout == ""
    return run.stderr.splitlines()


def on_a_terminal(environment: dict[str, str] | None = None) -> str:
    """Return what the work writes to a terminal."""
    parent, child = pty.openpty()
    fcntl.ioctl(child, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))  # rows, columns
    command = [sys.executable, "-c", WORK.format(seconds=60, done=0)]
    variables = os.environ | {"PYTHONPATH": str(ROOT)} | (environment or {})
    with subprocess.Popen(command, env=variables, stderr=child) as process:
        os.close(child)
        shown = b""
        try:
            while block := os.read(parent, 65536):
                shown += block
        except OSError:  # the other end is closed
            pass
    os.close(parent)
    assert process.returncode == 0
    return shown.decode()


def test_a_pipe_gets_a_line_every_ten_percent():
    lines = piped(0)
    assert len(lines) == 20
    assert lines[0] == "perplexity of text: 10 % (100 of 1000), perplexity 100, 00:00 elapsed, 00:00 left"
    assert lines[9].startswith("perplexity of text: 100 % (1000 of 1000), perplexity 1000")
    assert [line.split(",")[0] for line in lines[10:12]] == ["samples: 10 % (2 of 20)", "samples: 20 % (4 of 20)"]


def test_a_pipe_gets_nothing_for_what_is_done_in_a_moment():
    assert piped(60) == []


def test_what_an_interrupted_run_has_done_is_not_said_again():
    lines = piped(0, done=850)
    assert [line.split(",")[0] for line in lines[:2]] == [
        "perplexity of text: 90 % (900 of 1000)",
        "perplexity of text: 100 % (1000 of 1000)",
    ]
    assert lines[2].startswith("samples")


def test_a_terminal_gets_one_bar_that_is_redrawn():
    shown = on_a_terminal()
    assert "\r" in shown and "perplexity of text: 100%" in shown and "1000/1000" in shown
    assert "perplexity 1000" in shown
    assert shown.count("0/1000") >= 1, "it is there before the first piece is done"
    assert "elapsed" not in shown
    assert len(shown.splitlines()) < 60, "a bar is redrawn a few times a second, not for every piece"


def test_what_silences_libraries_does_not_silence_a_stage():
    assert "perplexity of text: 100%" in on_a_terminal({"TQDM_DISABLE": "1"})
    assert len(piped(0, environment={"TQDM_DISABLE": "1"})) == 20


def test_time_left_counts_what_this_run_did(monkeypatch, capsys):
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with Bar("tune", 100, done=50) as bar:
        now[0] += 30
        bar.advance(20, "loss 2.5")
    assert capsys.readouterr().err == "tune: 70 % (70 of 100), loss 2.5, 00:30 elapsed, 00:45 left\n"


def test_an_error_passes_and_leaves_no_line(capsys):
    with pytest.raises(ZeroDivisionError), Bar("tune", 10):
        raise ZeroDivisionError
    assert capsys.readouterr().err == ""
