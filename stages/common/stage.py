"""Run a stage or a command: one line per error, an exit code, and a record of the stage's time and memory."""

import errno
import io
import os
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from stages.common.errors import UserError, one_line
from stages.common.outputs import write_metrics

RUNTIME_FOLDER = Path("metrics/runtime")
USER_ERROR, FAILURE, INTERRUPTED = 2, 1, 130
RESUME = "`dvc repro` continues from here"


def run_stage(name: str, stage: Callable[[], None]) -> None:
    """Call `stage`, write metrics/runtime/<name>.json, and exit the process on failure, as `run` says."""
    started = time.perf_counter()

    def timed() -> None:
        stage()
        # Times differ from run to run, so they are not a DVC output, which would disable its run-cache.
        write_metrics(RUNTIME_FOLDER / f"{name}.json", stage_cost(time.perf_counter() - started))

    run(name, timed, RESUME)


def run(name: str, work: Callable[[], int | None], resume: str = "the same command starts again") -> None:
    """Call `work` and exit the process unless it returns 0 or None; errors are printed in one line.

    Exit codes: what `work` returns, 2 for a user's mistake, 130 when interrupted, after which `resume` says what to do,
    1 for anything else. ESPALIER_TRACEBACK=1 in the environment shows tracebacks.
    """
    accept_any_text()
    end_on_signals()
    try:
        if code := work():
            sys.exit(code)
        return
    except (Exception, KeyboardInterrupt) as error:
        message, code = reason(error, resume)
    # Here the frames of `work` are gone, and with them its unfinished progress bars: the line is the last one.
    fail(name, message, code)


def reason(error: BaseException, resume: str) -> tuple[str, int]:
    """Return the line for an error and the exit code; `resume` says what to do after an interruption."""
    if isinstance(error, KeyboardInterrupt):
        return f"interrupted; {resume}", INTERRUPTED
    if isinstance(error, UserError):
        return str(error), USER_ERROR
    if os.environ.get("ESPALIER_TRACEBACK") == "1":
        traceback.print_exception(error)
    return explain(error), FAILURE


def end_on_signals() -> None:
    """Raise KeyboardInterrupt on SIGINT and on SIGTERM."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))


def accept_any_text() -> None:
    """Write characters outside the terminal's encoding, and read invalid bytes, as question marks."""
    for stream in (sys.stdin, sys.stdout):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def stage_cost(seconds: float) -> dict[str, float]:
    """Return the wall time, and the peak resident memory of this process or of the largest that it has started."""
    peak_kib = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return {"wall_seconds": round(seconds, 2), "peak_resident_mib": round(peak_kib / 1024, 1)}


def explain(error: BaseException) -> str:
    """Return one line for an error that is not a UserError."""
    text = one_line(str(error))
    where = getattr(error, "filename", None) or Path.cwd()
    if (isinstance(error, OSError) and error.errno == errno.ENOSPC) or "No space left on device" in text:
        return f"no space left on the disk of {where}; free some and run `dvc repro` again ({text})"
    if isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        advice = "get write permission there (chmod, chown), then run `dvc repro` again"
        return f"{where}: {error.strerror}; {advice}"
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError" or "can't allocate memory" in text:
        return f"out of memory ({text}); use a smaller batch, fewer calibration windows or a smaller base.dtype"
    return f"{type(error).__name__}: {text} (ESPALIER_TRACEBACK=1 shows where)"


def fail(name: str, message: str, code: int) -> None:
    """Print one line and exit with `code`."""
    print(f"espalier: {name}: {one_line(message)}", file=sys.stderr, flush=True)
    sys.exit(code)
