"""Recovery in two processes over gloo is that of one, to rounding."""

import os
import subprocess
import sys

import pandas as pd
import pytest
from forks import forking_python
from helpers import ROOT
from safetensors.torch import load_file
from torch.testing import assert_close
from tune_helpers import read_metrics, tiny_model, tune_params, write_workspace

from stages.common.errors import UserError
from stages.models.checkpoint import load_model
from stages.tune.__main__ import main
from stages.tune.params import check_shares

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("launcher", "sharded", "changes"),
    [
        (TORCHRUN, False, {"data": "both", "window": 200}),  # with dropout, and sequences of different lengths
        ([], True, {"objective": "distillation", "hidden_weight": 0.1, "gradient_checkpointing": True}),
    ],
)
def test_two_processes_tune_as_one(tmp_path, monkeypatch, launcher, sharded, changes):
    changes |= {"micro_batch_size": 1, "validation_sequences": 3, "steps": 4}  # three: one process has fewer
    for count in (1, 2):
        model = tiny_model("pruned")
        write_workspace(tmp_path / str(count), model, processes=count, sharded=sharded and count > 1, **changes)
    monkeypatch.chdir(tmp_path / "1")
    main()
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*(launcher or [forking_python()]), "-m", "stages.tune"],
        cwd=tmp_path / "2", env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    one, two = (pd.read_csv(tmp_path / count / "metrics/tune_loss.csv") for count in "12")
    pd.testing.assert_frame_equal(one, two, rtol=0, atol=1e-4)
    adapters = (load_file(tmp_path / count / "models/adapter/adapter_model.safetensors") for count in "12")
    merged = (load_model(tmp_path / count / "models/merged").state_dict() for count in "12")
    for pair in (adapters, merged):
        assert_close(*pair, rtol=0, atol=1e-4)
    one, two = (read_metrics(tmp_path / count) for count in "12")
    assert two == pytest.approx(one | {"precision": "float32"}, abs=1e-4)


def test_processes_that_cannot_share_a_step_evenly_are_refused():
    params = tune_params(batch_size=8, micro_batch_size=2)
    check_shares(params, 4)
    with pytest.raises(UserError, match=r"run.processes = 3 does not divide the 4 micro-batches"):
        check_shares(params, 3)
