"""The stage with base.source = train, on a text of a few thousand tokens."""

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml
from forks import forking_python
from helpers import ROOT
from transformers import LlamaForCausalLM

BASE = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))["base"] | {"source": "train"}
TINY = {
    "vocab_size": 300, "hidden_size": 32, "intermediate_size": 48, "layers": 2, "heads": 4, "kv_heads": 2,
    "window": 16, "batch_size": 4, "steps": 30, "warmup_steps": 3,
}  # fmt: skip
# Runs the stage so that it saves its state at every step, and kills itself on the n-th call of a function.
KILLING = """
import os, signal, sys
from stages.base import __main__ as stage, from_scratch
from stages.common import resume, training
training.SAVE_EVERY_SECONDS = -1
from_scratch.VALIDATE_EVERY = 10
owner = {"resume": resume, "from_scratch": from_scratch, "stage": stage}[sys.argv[1]]
name, left = sys.argv[2], int(sys.argv[3])
whole = getattr(owner, name)
def killed(*arguments, **options):
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return whole(*arguments, **options)
setattr(owner, name, killed)
stage.main()
"""


def workspace(folder: Path, **changes) -> Path:
    """Write params and a text to `folder`."""
    words = [
        "return",
        "the",
        "number",
        "of",
        "items",
        "in",
        "a",
        "list",
        "or",
        "none",
        "if",
        "there",
        "is",
        "no",
        "file",
    ]
    generator = random.Random(0)
    texts = [" ".join(generator.choices(words, k=300)) for _ in range(12)]
    (folder / "data/text").mkdir(parents=True)
    for name, part in (("train", texts[:8]), ("validation", texts[8:])):
        pd.DataFrame({"text": part}).to_parquet(folder / f"data/text/{name}.parquet")
    run = {"device": "cpu", "threads": 1, "precision": "float32", "processes": 1, "sharded": False}
    sections = {"run": run, "base": BASE | TINY | changes}
    (folder / "params.yaml").write_text(yaml.safe_dump(sections), encoding="utf-8")
    return folder


def run(folder: Path, *command: str, python: Path | str | None = None) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [python or forking_python(), *(command or ("-m", "stages.base"))],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
    )


def outputs(folder: Path) -> dict[str, bytes]:
    files = [*(folder / "models/base").iterdir(), *(folder / "metrics").rglob("base*")]
    files = [file for file in [*files, *(folder / "metrics/live").rglob("*")] if file.is_file()]
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}


@pytest.mark.slow
def test_a_run_that_was_killed_again_and_again_ends_with_the_same_bytes(tmp_path):
    whole, killed = workspace(tmp_path / "whole"), workspace(tmp_path / "killed")
    done = run(whole, "-c", KILLING, "stage", "main", "0", python=sys.executable)  # it has another hash seed
    assert done.returncode == 0, done.stderr

    def kill(owner: str, name: str, call: int) -> None:
        assert run(killed, "-c", KILLING, owner, name, str(call)).returncode == -signal.SIGKILL
        (state,) = (killed / ".dvc/tmp/resume").iterdir()
        assert (state / "state.safetensors").is_file()
        assert not (killed / "models/base").exists()

    kill("from_scratch", "batch", 5)  # in step 5
    kill("resume", "save_file", 8)  # while the state after step 12 is written
    kill("stage", "save_model", 1)  # after the last step
    done = run(killed, "-c", KILLING, "stage", "main", "0")
    assert done.returncode == 0, done.stderr
    assert outputs(killed) == outputs(whole)
    assert not list((killed / ".dvc/tmp/resume").iterdir())

    again = workspace(tmp_path / "again")
    assert run(again, "-c", KILLING, "stage", "main", "0").returncode == 0
    assert outputs(again) == outputs(whole)


@pytest.mark.slow
def test_training_learns_and_says_so(tmp_path):
    folder = workspace(tmp_path)
    done = run(folder)
    assert done.returncode == 0, done.stderr
    metrics = yaml.safe_load((folder / "metrics/details/base.json").read_text())
    assert (metrics["steps"], metrics["trained_tokens"]) == (30, 30 * 4 * 16)
    curve = pd.read_csv(folder / "metrics/base_loss.csv")
    assert curve[curve.split == "train"].step.tolist() == [10, 20, 30]
    validation = curve[curve.split == "validation"].set_index("step").loss
    assert validation[30] == metrics["validation_loss"] < 0.8 * validation[0]
    model = LlamaForCausalLM.from_pretrained(folder / "models/base")
    assert model.num_parameters() == metrics["parameters"]
    assert (folder / "models/base/tokenizer.json").is_file()


@pytest.mark.slow
def test_a_loss_that_is_not_finite_is_one_line_and_keeps_what_was_there(tmp_path):
    folder = workspace(tmp_path, learning_rate=1e30)
    (folder / "models/base").mkdir(parents=True)
    (folder / "models/base/kept").touch()
    done = run(folder)
    assert done.returncode == 2
    line = done.stderr.strip().splitlines()[-1]
    assert "base.learning_rate = 1e+30 is too high" in line and "Traceback" not in done.stderr
    assert [file.name for file in (folder / "models/base").iterdir()] == ["kept"]
