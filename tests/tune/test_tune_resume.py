import os
import signal
import subprocess
import sys

import pytest
from forks import forking_python
from helpers import ROOT
from tune_helpers import output_bytes, tiny_model, write_workspace

# Runs the stage so that it saves its state at every step, and sends itself a signal on the n-th call of a function.
KILLING = """
import os, signal, sys
from stages.common import resume, training
from stages.common.stage import run_stage
from stages.tune import __main__ as stage, recovery
training.SAVE_EVERY_SECONDS = -1
owner = {"resume": resume, "recovery": recovery, "stage": stage}[sys.argv[1]]
name, left, number = sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
whole = getattr(owner, name)
def killed(*arguments, **options):
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), number)
    return whole(*arguments, **options)
setattr(owner, name, killed)
run_stage("tune", stage.main)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {"data": "both", "window": 200},
        {
            "method": "full",
            "objective": "distillation",
            "hidden_weight": 0.1,
            "gradient_checkpointing": True,
            "sparsity": {"structure": "weight", "ratio": 0.5, "begin": 0.0, "end": 0.7, "every": 1},
        },
    ],
)
def test_a_run_that_was_killed_again_and_again_ends_with_the_same_bytes(tmp_path, changes):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}

    def run(folder, owner="stage", name="main", call=0, number=signal.SIGKILL, python=None) -> int:
        command = [python or forking_python(), "-c", KILLING, owner, name, str(call), str(int(number))]
        done = subprocess.run(command, cwd=folder, env=environment, stderr=subprocess.PIPE, text=True)
        if number == signal.SIGINT:
            assert done.stderr.splitlines()[-1] == "espalier: tune: interrupted; `dvc repro` continues from here"
            assert "Traceback" not in done.stderr
        return done.returncode

    for name in ("whole", "killed"):
        write_workspace(tmp_path / name, tiny_model("pruned"), steps=10, validate_every=3, **changes)
    assert run(tmp_path / "whole", python=sys.executable) == 0  # another process has another hash seed

    killed = tmp_path / "killed"
    assert run(killed, "recovery", "backward_mean", 4) == -signal.SIGKILL  # in step 4
    (state,) = (killed / ".dvc/tmp/resume").iterdir()
    assert run(killed, "resume", "save_file", 3) == -signal.SIGKILL  # while the state after step 6 is written
    assert run(killed, "recovery", "mean_loss", 2) == -signal.SIGKILL  # in the validation after step 6
    assert run(killed, "recovery", "backward_mean", 2, signal.SIGINT) == 130  # in a later step
    assert [folder.name for folder in (killed / ".dvc/tmp/resume").iterdir()] == [state.name]
    assert run(killed, "stage", "save_merged", 1) == -signal.SIGKILL  # between models/adapter and models/merged
    assert [folder.name for folder in (killed / ".dvc/tmp/resume").iterdir()] == [state.name]
    assert run(killed) == 0
    assert output_bytes(killed) == output_bytes(tmp_path / "whole")
    assert not state.exists()
