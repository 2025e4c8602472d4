"""The stage as a command."""

import json
import os
import random
import shutil
import subprocess

import pandas as pd
import pytest
import torch
import yaml
from evaluate_helpers import hellaswag_folder, text, tiny_model, tiny_tokenizer, write_tasks
from forks import forking_python
from helpers import ROOT
from pydantic import ValidationError

from stages.evaluate.generation import continuations
from stages.evaluate.params import EvaluateParams
from stages.models.checkpoint import save_checkpoint

PARAMS = {
    "seed": 1,
    "sequence_length": 16,
    "tokens": None,
    "tasks": "all",
    "limit": None,
    "num_fewshot": 0,
    "chat_template": False,
    "batch_tokens": 256,
    "prompts": ["the tree", "a wall"],
    "new_tokens": 5,
}

# Runs the stage where every look-up and connection is refused, and noted, as libraries may shrug a refusal off.
WITHOUT_NETWORK = """
import runpy, sys
def refuse(event, arguments):
    if event in ("socket.connect", "socket.sendto", "socket.getaddrinfo", "socket.gethostbyname"):
        with open("tried", "a") as file:
            print(event, *arguments, file=file)
        raise OSError("no network here")
sys.addaudithook(refuse)
runpy.run_module("stages.evaluate", run_name="__main__", alter_sys=True)
"""


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    """Return a project folder with a model, texts and tasks."""
    folder = tmp_path_factory.mktemp("workspace")
    save_checkpoint(tiny_model("pruned"), tiny_tokenizer(), folder / "model")
    write_tasks(folder / "data" / "tasks")
    hellaswag_folder(folder / "data" / "tasks")  # as lm-eval defines it, on the hub's dataset
    (folder / "data" / "perplexity").mkdir()
    rng = random.Random(0)
    for name in ("one", "two"):
        texts = pd.DataFrame({"text": [text(rng, 20) for _ in range(5)]})
        texts.to_parquet(folder / "data" / "perplexity" / f"{name}.parquet")
    return folder


def run(workspace, changes=None, home=None, model="model"):
    """Run the stage, in a process of its own where its home is another."""
    sections = {
        "run": {"device": "cpu", "threads": 1, "precision": "float32", "processes": 1, "sharded": False},
        "data": {"task_functions": False},
        "evaluate": PARAMS | (changes or {}),
        "models": {"mine": model},
    }
    (workspace / "params.yaml").write_text(yaml.safe_dump(sections))
    environment = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    environment |= {"PYTHONPATH": str(ROOT), "HOME": str(home or os.environ["HOME"])}
    command = [forking_python(), "-c", WITHOUT_NETWORK, "evaluate@mine"]
    return subprocess.run(command, cwd=workspace, env=environment, capture_output=True, text=True, check=False)


def outputs(workspace) -> dict[str, bytes]:
    folders = [workspace / "metrics" / name for name in ("evaluate", "details", "outcomes")]
    return {str(file): file.read_bytes() for folder in folders for file in folder.rglob("*") if file.is_file()}


@pytest.mark.slow
def test_outputs_are_as_documented_and_the_same_again(workspace, tmp_path):
    for variable in ("HF_HOME", "HF_DATASETS_CACHE", "XDG_CACHE_HOME"):
        assert variable not in os.environ
    result = run(workspace, home=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "Traceback" not in result.stderr
    first = outputs(workspace)
    metrics = json.loads((workspace / "metrics" / "evaluate" / "mine.json").read_text())
    accuracies = {"ending_acc", "gap_acc", "hellaswag_acc"}
    assert set(metrics) == {"one_ppl", "two_ppl", *accuracies, "average_acc"}
    assert metrics["average_acc"] == pytest.approx(sum(metrics[name] for name in accuracies) / 3)
    details = json.loads((workspace / "metrics" / "details" / "evaluate" / "mine.json").read_text())
    assert {"ending_acc_norm_stderr", "gap_acc_stderr", "hellaswag_acc_norm"} <= set(details)
    assert not set(details) & set(metrics)
    outcomes = workspace / "metrics" / "outcomes" / "mine"
    windows = pd.read_parquet(outcomes / "windows.parquet")
    assert list(windows) == ["set", "window", "loss", "tokens"]
    assert set(windows["set"]) == {"one", "two"}
    assert set(windows["tokens"]) == {15}
    assert list(pd.read_parquet(outcomes / "questions.parquet")) == ["task", "question", "acc", "acc_norm", "answer"]
    samples = json.loads((outcomes / "samples.json").read_text())
    assert [sample["prompt"] for sample in samples] == PARAMS["prompts"]
    assert all(sample["continuation"] for sample in samples)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()], "files left in the user's home"
    assert not (workspace / "tried").exists(), (workspace / "tried").read_text()

    shutil.rmtree(workspace / "metrics")
    assert run(workspace, home=tmp_path).returncode == 0
    assert outputs(workspace) == first


@pytest.mark.slow
def test_mistakes_are_one_line_and_keep_earlier_outputs(workspace):
    (workspace / "metrics" / "evaluate").mkdir(parents=True, exist_ok=True)
    (workspace / "metrics" / "evaluate" / "mine.json").write_text("{}\n")
    before = outputs(workspace)
    for arguments, message in [
        (
            {"changes": {"tasks": ["boolq"]}},
            "evaluate.tasks = 'boolq' is not a known task; expected one of: all, ending, gap",
        ),
        ({"model": "nothing"}, "nothing is not a checkpoint: config.json is missing"),
    ]:
        result = run(workspace, **arguments)
        assert result.returncode == 2
        last = result.stderr.strip().splitlines()[-1]
        assert last.startswith("espalier: evaluate-mine: ") and message in last
        assert "Traceback" not in result.stderr
        assert outputs(workspace) == before


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("tasks", "boolq"),
        ("tasks", [1]),
        ("tokens", 15),
        ("tokens", 0),
        ("tokens", 1e6),
        ("limit", 0),
        ("limit", 0.5),
        ("num_fewshot", -1),
        ("sequence_length", 1),
        ("batch_tokens", 0),
        ("prompts", [""]),
        ("new_tokens", True),
    ],
)
def test_values_that_are_not_allowed(key, value):
    EvaluateParams.model_validate(PARAMS)
    with pytest.raises(ValidationError):
        EvaluateParams.model_validate(PARAMS | {key: value})


def test_continuations_are_greedy():
    model, tokenizer = tiny_model(), tiny_tokenizer()
    (sample,) = continuations(model, tokenizer, ["the tree"], new_tokens=4)
    tokens = tokenizer("the tree", return_tensors="pt")["input_ids"]
    prompt_length = tokens.shape[1]
    for _ in range(4):
        following = model(tokens).logits[:, -1:].argmax(-1)
        tokens = torch.cat([tokens, following], 1)
    assert sample == {"prompt": "the tree", "continuation": tokenizer.decode(tokens[0, prompt_length:])}
