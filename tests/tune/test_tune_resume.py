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
from stages.common.launch import run_parallel_stage
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
run_parallel_stage("tune", stage.main)
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


@pytest.mark.slow
def test_two_processes_that_were_killed_end_with_the_same_bytes(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}

    def run(folder, name="main", call=0) -> tuple[int, str]:
        command = [forking_python(), "-c", KILLING, "recovery" if call else "stage", name, str(call), "9"]
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
        return done.returncode, done.stderr

    for name in ("whole", "killed"):
        changes = {"processes": 2, "sharded": True, "micro_batch_size": 1, "steps": 6, "validate_every": 3}
        write_workspace(tmp_path / name, tiny_model("pruned"), **changes)
    code, said = run(tmp_path / "whole")
    assert code == 0, said
    code, said = run(tmp_path / "killed", "backward_mean", 5)
    assert code == 1 and "of 2 was killed by SIGKILL, perhaps for memory; `dvc repro` continues from here" in said
    (state,) = (tmp_path / "killed/.dvc/tmp/resume").iterdir()
    code, said = run(tmp_path / "killed", "backward_mean", 4)  # there are fewer steps left
    assert code == 0 and not state.exists(), said
    assert output_bytes(tmp_path / "killed") == output_bytes(tmp_path / "whole")
