"""The branching harness as a model of lm-eval's own command."""

import json
import os
import subprocess
import sys

import pytest
from evaluate_helpers import tiny_model, tiny_tokenizer, write_tasks
from helpers import ROOT

from stages.evaluate.harness import run_tasks
from stages.evaluate.language_model import BranchingLM
from stages.evaluate.tasks import read_tasks
from stages.models.checkpoint import save_checkpoint


@pytest.mark.slow
def test_the_command_gives_the_stages_numbers(tmp_path):
    save_checkpoint(tiny_model("pruned"), tiny_tokenizer(), tmp_path / "model")
    write_tasks(tmp_path / "tasks")
    command = [
        sys.executable, "-m", "stages.evaluate.lm_eval", "--model", "espalier", "--model_args",
        f"pretrained={tmp_path / 'model'},batch_tokens=500", "--tasks", str(tmp_path / "tasks/ending.yaml"),
        "--device", "cpu", "--output_path", str(tmp_path / "out"), "--log_samples",
    ]  # fmt: skip
    environment = os.environ | {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "home")}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (file,) = (tmp_path / "out").rglob("results_*.json")
    theirs = json.loads(file.read_text())["results"]["ending"]
    configs = read_tasks(tmp_path / "tasks", ["ending"], tmp_path / "cache").configs
    ours = run_tasks(BranchingLM(tiny_model("pruned"), tiny_tokenizer(), 500), configs, 0, None, seed=1)
    keys = ("acc,none", "acc_norm,none", "acc_stderr,none", "acc_norm_stderr,none")
    assert {key: theirs[key] for key in keys} == {key: ours["results"]["ending"][key] for key in keys}
