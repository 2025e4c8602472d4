"""On PYTHONPATH, this kills a stage's process group at the moment that a plan names: python imports it as it starts.

ESPALIER_PLAN is a folder with a file for each stage that is to be killed once: the signal's number, the unit of the
moment and the moment. `3 seconds` are of the process's own CPU time, so a busy machine moves no moment; `3 writes` is
just before the stage changes a file or folder of the project for the third time. The file is removed first.
"""

import os
import sys
import threading
import time
from pathlib import Path

WRITING = {"open", "os.rename", "os.remove", "os.rmdir", "os.mkdir"}  # events of sys.addaudithook


def kill(plan: Path, number: int) -> None:
    plan.unlink()
    os.killpg(os.getpgrp(), number)


def kill_after_seconds(plan: Path, number: int, moment: float) -> None:
    """Start a thread that waits for the moment."""

    def wait() -> None:
        while time.process_time() < moment:
            time.sleep(0.005)
        kill(plan, number)

    threading.Thread(target=wait, daemon=True).start()


def kill_at_write(plan: Path, number: int, moment: float) -> None:
    """Count the changes of files and folders below the working folder, compiled Python left out."""
    here, left = str(Path.cwd()), moment

    def watch(event: str, arguments: tuple) -> None:
        nonlocal left
        if event not in WRITING or not isinstance(arguments[0], str | os.PathLike):
            return
        if event == "open" and not (arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR):
            return
        path = str(Path(arguments[0]).absolute())
        if path.startswith(here) and "__pycache__" not in path:
            left -= 1
            if left == 0:
                kill(plan, number)

    sys.addaudithook(watch)


if sys.orig_argv[1:2] == ["-m"] and sys.orig_argv[2].startswith("stages.") and "ESPALIER_PLAN" in os.environ:
    file = Path(os.environ["ESPALIER_PLAN"], os.environ.get("DVC_STAGE", ""))
    if file.is_file():
        number, moment, unit = file.read_text().split()
        (kill_after_seconds if unit == "seconds" else kill_at_write)(file, int(number), float(moment))
