"""An interrupted evaluation continues with the task it was in, and ends as one that was not interrupted."""

import json
import math
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
import yaml
from evaluate_helpers import text, tiny_model, tiny_tokenizer, write_tasks
from forks import forking_python
from helpers import ROOT

from stages.common.resume import forget
from stages.evaluate import __main__ as stage
from stages.evaluate import perplexity, resume
from stages.evaluate.resume import Kept, remember
from stages.models.checkpoint import save_checkpoint

PARAMS = {
    "seed": 1, "sequence_length": 16, "tokens": None, "tasks": "all", "limit": None, "num_fewshot": 0,
    "chat_template": False, "batch_tokens": 64, "prompts": ["the tree"], "new_tokens": 3,
}  # fmt: skip

# Runs the stage, keeps every batch at once, counts the batches of texts and tasks, and sends itself a signal at one.
STAGE = """
import os, signal, sys
from stages.common.stage import run_stage
from stages.evaluate import __main__ as stage, perplexity, resume
from stages.evaluate.language_model import BranchingLM
resume.SAVE_EVERY_SECONDS = 0
batch_losses, score, at = perplexity.batch_losses, BranchingLM.score, int(sys.argv[2])
done = []
def measure(function, *arguments):
    if len(done) == at:
        os.kill(os.getpid(), getattr(signal, sys.argv[1]))
    done.append(function)
    return function(*arguments)
perplexity.batch_losses = lambda *arguments: measure(batch_losses, *arguments)
BranchingLM.score = lambda *arguments: measure(score, *arguments)
run_stage("evaluate-base", lambda: stage.main("base", "model"))
print(done.count(batch_losses), done.count(score))
"""
NEVER = -1


def run_stage(project: Path, signal: str = "SIGKILL", at: int = NEVER) -> subprocess.CompletedProcess:
    """Run the stage, which sends itself `signal` before the batch with number `at`; it prints how many it measured."""
    command = [forking_python(), "-c", STAGE, signal, str(at)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_checkpoint(tiny_model(), tiny_tokenizer(), tmp_path / "model")
    write_tasks(tmp_path / "data" / "tasks")
    (tmp_path / "data" / "perplexity").mkdir()
    texts = pd.DataFrame({"text": [text(random.Random(0), 40) for _ in range(5)]})
    texts.to_parquet(tmp_path / "data/perplexity/one.parquet")
    sections = {
        "run": {"device": "cpu", "threads": 1, "precision": "float32", "processes": 1, "sharded": False},
        "data": {"task_functions": False},
        "evaluate": PARAMS,
    }
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(sections), encoding="utf-8")
    (tmp_path / ".dvc").mkdir()
    yield tmp_path
    torch.use_deterministic_algorithms(False)


def outputs(project) -> dict[str, bytes]:
    """Return every output by its path; not the record of the time it took."""
    files = [file for file in sorted((project / "metrics").rglob("*")) if file.is_file()]
    return {str(file): file.read_bytes() for file in files if "runtime" not in file.parts}


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
    kept = sorted(file.name for file in resumed.rglob("*") if file.is_file())
    assert kept == ["answers ending", "task ending", "text one"]
    monkeypatch.setattr(perplexity, "batch_losses", lambda *_: pytest.fail("the text was measured before"))
    stage.main("base", "model")
    assert started == ["ending", "gap", "gap"]
    assert outputs(project) == undisturbed


@pytest.mark.slow
def test_a_killed_run_goes_on_within_the_text_and_the_task(project):
    stage.main("base", "model")
    expected = outputs(project)
    shutil.rmtree(project / "metrics")
    # The text has four batches: the first run ends within it, the second after its last one, within the first task.
    for at in (3, 3):
        assert run_stage(project, "SIGKILL", at).returncode == -signal.SIGKILL
        assert not (project / "metrics").exists()
    texts, answers = map(int, run_stage(project).stdout.split())
    assert texts == 0 and answers > 0
    assert outputs(project) == expected
    assert not list((project / ".dvc/tmp/resume").glob("*"))


@pytest.mark.slow
def test_an_interrupt_is_one_line_and_the_next_run_goes_on(project):
    done = run_stage(project, "SIGINT", 3)
    assert done.returncode == 130
    assert done.stderr.splitlines()[-1] == "espalier: evaluate-base: interrupted; `dvc repro` continues from here"
    assert "Traceback" not in done.stderr
    assert not (project / "metrics").exists()


def test_another_model_starts_anew(project, monkeypatch):
    monkeypatch.setattr(stage, "run_tasks", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    for kind in ("GQA", "MHA"):
        save_checkpoint(tiny_model(kind), tiny_tokenizer(), project / "model")
        with pytest.raises(KeyboardInterrupt):
            stage.main("base", "model")
    assert len(list((project / ".dvc/tmp/resume").iterdir())) == 2


def test_remember(tmp_path):
    file = tmp_path / "folder" / "a"
    assert remember(file, lambda: [0.1 + 0.2, None, (1,)]) == [0.1 + 0.2, None, [1]]
    assert remember(file, lambda: pytest.fail("measured twice")) == [0.1 + 0.2, None, [1]]
    with pytest.raises(ZeroDivisionError):
        remember(tmp_path / "folder" / "b", lambda: 1 / 0)
    assert [each.name for each in file.parent.iterdir()] == ["a"]


def test_batches_are_kept_every_few_seconds(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(resume.time, "monotonic", lambda: now[0])
    kept = Kept(tmp_path / "text")
    for seconds, on_disk in [(1, []), (3, []), (6, [1, 3, 6]), (7, [1, 3, 6]), (12, [1, 3, 6, 7, 12])]:
        now[0] = seconds
        kept.add(seconds)
        assert Kept(tmp_path / "text").results == on_disk
    kept.add(13)
    kept.save()
    assert Kept(tmp_path / "text").results == [1, 3, 6, 7, 12, 13]


def test_a_damaged_state_is_dropped(tmp_path, capsys):
    kept = Kept(tmp_path / "text")
    kept.add([1.5])
    kept.save()
    content = (tmp_path / "text").read_bytes()
    (tmp_path / "text").write_bytes(content.replace(b"1.5", b"1.6"))
    assert Kept(tmp_path / "text").results == []
    assert "is damaged" in capsys.readouterr().err


def evaluate_again_and_again(folder: Path, start: Any, rounds: int) -> None:
    """Do with the state what an evaluation does, `rounds` times, in step with another process."""
    resume.SAVE_EVERY_SECONDS = 0
    for _ in range(rounds):
        start.wait()
        kept = Kept(folder / "text one")
        for batch in range(len(kept.results), 4):
            kept.add([batch / 3])
        kept.save()
        assert kept.results == [[0.0], [1 / 3], [2 / 3], [1.0]]
        assert remember(folder / "task ending", lambda: {"acc": 0.5}) == {"acc": 0.5}
        forget(folder)


@pytest.mark.slow
def test_two_evaluations_of_one_model_at_once(tmp_path):
    context = multiprocessing.get_context("fork")
    start = context.Barrier(2, timeout=30)
    arguments = (tmp_path / "state", start, 300)
    processes = [context.Process(target=evaluate_again_and_again, args=arguments) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]


def test_only_a_part_of_a_text_is_measured(project):
    params = yaml.safe_load((project / "params.yaml").read_text())
    stage.main("all", "model")
    params["evaluate"]["tokens"] = 100
    (project / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
    stage.main("part", "model")
    whole, part = (pd.read_parquet(project / f"metrics/outcomes/{name}/windows.parquet") for name in ("all", "part"))
    assert len(part) == 6 < len(whole)
    pd.testing.assert_frame_equal(part, whole[:6])
    for name, windows in (("all", whole), ("part", part)):
        metrics = json.loads((project / f"metrics/evaluate/{name}.json").read_text())
        details = json.loads((project / f"metrics/details/evaluate/{name}.json").read_text())
        assert metrics["one_ppl"] == pytest.approx(math.exp(windows["loss"].mean()))
        assert details["one_windows"] == len(windows)
        assert details["one_windows_in_text"] == len(whole)


def test_no_tasks(project):
    shutil.rmtree(project / "data" / "tasks")
    (project / "data" / "tasks").mkdir()
    stage.main("base", "model")
    assert json.loads((project / "metrics/evaluate/base.json").read_text()).keys() == {"one_ppl"}
    assert len(pd.read_parquet(project / "metrics/outcomes/base/questions.parquet")) == 0


@pytest.mark.slow
@pytest.mark.parametrize("sharded", [False, True])
def test_two_processes_under_torchrun_write_what_one_does(project, sharded):
    (project / "models").mkdir()
    (project / "model").rename(project / "models/base")
    stage.main("base", "models/base")
    alone = outputs(project)
    shutil.rmtree(project / "metrics")
    sections = yaml.safe_load((project / "params.yaml").read_text(encoding="utf-8"))
    sections["run"] |= {"processes": 2, "sharded": sharded}
    (project / "params.yaml").write_text(yaml.safe_dump(sections), encoding="utf-8")
    launcher = ["torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [sys.executable, "-m", *launcher, "-m", "stages.evaluate", "base"],
        cwd=project, env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert outputs(project) == alone
    assert not list((project / ".dvc/tmp/resume").glob("*"))
