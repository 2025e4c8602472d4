"""How much is tried, and the count of it: a part in `make test`, all of it in `make faults`."""

import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from stages.common.errors import LONGEST, UserError
from stages.common.stage import run

LARGE = os.environ.get("ESPALIER_FAULTS") == "large"
EXAMPLES = 2000 if LARGE else 40  # of each property
TRIED: Counter[str] = Counter()
HELD: Counter[str] = Counter()


@contextmanager
def attempt(kind: str) -> Iterator[None]:
    """Count one attempt of a kind; it held if the block raises nothing."""
    TRIED[kind] += 1
    yield
    HELD[kind] += 1


def refusal(work: Callable[[], object]) -> str | None:
    """Return the message of the UserError that `work` raises, which is one line; None where it raises nothing."""
    try:
        work()
    except UserError as error:
        message = str(error)
        assert message and message.isprintable() and len(message) <= LONGEST + 4, message
        return message
    return None


def answer(capsys: pytest.CaptureFixture[str], name: str, work: Callable[[], int | None]) -> tuple[int, str]:
    """Return the exit code of a command and the one line that it ends with."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    with pytest.raises(SystemExit) as ended:
        run(name, work)
    for number, handler in handlers.items():  # pytest's own
        signal.signal(number, handler)
    printed = capsys.readouterr().err
    assert "Traceback" not in printed
    (line,) = [line for line in printed.splitlines() if line.startswith("espalier: ")]
    assert printed.endswith(f"{line}\n")
    return int(ended.value.code or 0), line.removeprefix(f"espalier: {name}: ")
