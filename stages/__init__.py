"""Espalier's pipeline: one package per stage, run as `python -m stages.<name>` from the project's root."""

import importlib.util
import os
import signal
import sys

if sys.argv[0] == "-m":  # a stage is starting: Ctrl-C during its imports ends it without a traceback
    signal.signal(signal.SIGINT, signal.SIG_DFL)

# OpenMP's threads spin for a moment while they wait, and sleep then; read when torch is imported. By default they spin
# on, and a step takes up to ten times as long as soon as anything else wants a core: a second worker, a test.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")

if importlib.util.find_spec("torch") is None or importlib.util.find_spec("pydantic") is None:
    sys.exit(
        f"espalier: {sys.executable} lacks the project's packages; run `make setup`, "
        "then use `make`, or put .venv/bin first on PATH before calling dvc"
    )
