"""An interrupted evaluation continues with the task it was in, and ends as one that was not interrupted."""

import os
import random
import subprocess
import sys

import pandas as pd
import pytest
import torch
import yaml
from evaluate_helpers import text, tiny_model, tiny_tokenizer, write_tasks
from helpers import ROOT

from stages.common.checkpoint import save_checkpoint
from stages.evaluate import __main__ as stage
from stages.evaluate.resume import remember

PARAMS = {
    "seed": 1, "sequence_length": 16, "tasks": "all", "limit": None, "num_fewshot": 0, "batch_tokens": 256,
    "prompts": ["the tree"], "new_tokens": 3,
}  # fmt: skip

# Runs the stage, says which tasks it starts, and interrupts itself, as Ctrl-C does, while one of them is scored.
INTERRUPTED = """
import os, signal, sys
from stages.common.stage import run_stage
from stages.evaluate import __main__ as stage
from stages.evaluate.language_model import BranchingLM
run_tasks, score, running = stage.run_tasks, BranchingLM.score, []
def run(model, configs, *settings):
    running.append(configs[0]["task"])
    print(running[-1], flush=True)
    return run_tasks(model, configs, *settings)
def interrupted(self, *arguments):
    if running[-1] == sys.argv[1]:
        os.kill(os.getpid(), signal.SIGINT)
    return score(self, *arguments)
stage.run_tasks, BranchingLM.score = run, interrupted
run_stage("evaluate-base", lambda: stage.main("base", "model"))
"""


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_checkpoint(tiny_model(), tiny_tokenizer(), tmp_path / "model")
    write_tasks(tmp_path / "data" / "tasks")
    (tmp_path / "data" / "perplexity").mkdir()
    texts = pd.DataFrame({"text": [text(random.Random(0), 40) for _ in range(5)]})
    texts.to_parquet(tmp_path / "data/perplexity/one.parquet")
    sections = {"run": {"device": "cpu", "threads": 1}, "evaluate": PARAMS}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(sections), encoding="utf-8")
    (tmp_path / ".dvc").mkdir()
    yield tmp_path
    torch.use_deterministic_algorithms(False)


def outputs(project) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted((project / "metrics").rglob("*")) if file.is_file()}


def test_only_what_was_not_finished_is_measured_again(project, monkeypatch):
    stage.main("base", "model")
    undisturbed = outputs(project)
    resumed = project / ".dvc" / "tmp" / "resume"
    assert not list(resumed.glob("*")), "a finished run leaves nothing"

    run_tasks, started = stage.run_tasks, []

    def interrupted(model, configs, *settings):
        started.append(configs[0]["task"])
        if len(started) == 2:
            raise KeyboardInterrupt
        return run_tasks(model, configs, *settings)

    monkeypatch.setattr(stage, "run_tasks", interrupted)
    with pytest.raises(KeyboardInterrupt):
        stage.main("base", "model")
    assert outputs(project) == undisturbed, "an interrupted run touches no output"
    assert sorted(file.name for file in resumed.rglob("*.json")) == ["task ending.json", "text one.json"]
    monkeypatch.setattr(stage, "window_losses", lambda *_: pytest.fail("the text was measured before"))
    stage.main("base", "model")
    assert started == ["ending", "gap", "gap"]
    assert outputs(project) == undisturbed


@pytest.mark.slow
def test_an_interrupt_is_one_line_and_the_next_run_goes_on(project):
    environment = os.environ | {"PYTHONPATH": str(ROOT)}

    def run(interrupt: str) -> subprocess.CompletedProcess:
        command = [sys.executable, "-c", INTERRUPTED, interrupt]
        return subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, check=False)

    done = run("gap")
    assert done.returncode == 130
    assert done.stderr.splitlines()[-1] == "espalier: evaluate-base: interrupted; `dvc repro` continues from here"
    assert "Traceback" not in done.stderr
    assert not (project / "metrics").exists()
    assert [done.stdout, run("").stdout] == ["ending\ngap\n", "gap\n"]
    resumed = outputs(project)
    stage.main("base", "model")
    assert outputs(project) == resumed


def test_another_model_starts_anew(project, monkeypatch):
    monkeypatch.setattr(stage, "run_tasks", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    for kind in ("GQA", "MHA"):
        save_checkpoint(tiny_model(kind), tiny_tokenizer(), project / "model")
        with pytest.raises(KeyboardInterrupt):
            stage.main("base", "model")
    assert len(list((project / ".dvc/tmp/resume").iterdir())) == 2


def test_remember(tmp_path):
    assert remember(tmp_path, "a", lambda: [0.1 + 0.2, None]) == [0.1 + 0.2, None]
    assert remember(tmp_path, "a", lambda: pytest.fail("measured twice")) == [0.1 + 0.2, None]
    with pytest.raises(ZeroDivisionError):
        remember(tmp_path, "b", lambda: 1 / 0)
    assert [file.name for file in tmp_path.iterdir()] == ["a.json"]
