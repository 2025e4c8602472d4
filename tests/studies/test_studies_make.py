"""`make thesis`: what it runs, and how it ends, with a Python that only says what it was asked."""

import shutil
import subprocess

import pytest
from helpers import ROOT

PYTHON = """#!/bin/sh
echo "$*"
case $2 in studies.sweep) exit {sweep} ;; thesis.study) exit {compare} ;; esac
"""
SWEEP, COMPARE = "-m studies.sweep studies/thesis.yaml --jobs 2", "-m thesis.study"


@pytest.mark.parametrize(
    ("sweep", "compare", "asked", "failed"),
    [
        (0, 0, [SWEEP, COMPARE], False),
        (1, 0, [SWEEP, COMPARE], True),  # a variant failed
        (0, 2, [SWEEP, COMPARE], True),
        (2, 0, [SWEEP], True),  # the study or the work tree is not as it must be
        (130, 0, [SWEEP], True),  # interrupted
    ],
)
def test_what_ran_is_compared_and_a_failure_is_no_success(tmp_path, sweep, compare, asked, failed):
    shutil.copy(ROOT / "Makefile", tmp_path)
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(PYTHON.format(sweep=sweep, compare=compare))
    python.chmod(0o755)
    command = ["make", "--silent", "--old-file=setup", "thesis", "JOBS=2"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout.splitlines()[: len(asked) + 1] == asked, done.stderr
    assert bool(done.returncode) is failed
