"""The tasks and the base together: the base that `dvc repro` made must beat chance, else the tasks measure nothing."""

import math

import pandas as pd
import pytest
import torch
import yaml
from helpers import ROOT
from lm_eval import simple_evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from scipy.stats import binomtest

from stages.common.checkpoint import load_model, load_tokenizer
from stages.common.windows import consecutive_windows, token_stream

TASKS = ("pydocs_continuation", "pydocs_gap", "pydocs_object")
PARAMS = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (ROOT / "models/base").is_dir(), reason="no models/base: run `dvc repro` first"),
    pytest.mark.skipif(PARAMS["base"]["source"] != "train", reason="another base than the one trained here"),
]


def test_the_base_beats_chance_on_every_task_and_by_ten_points_on_two(monkeypatch):
    monkeypatch.chdir(ROOT)
    configs = [yaml.safe_load((ROOT / f"data/tasks/{name}.yaml").read_text(encoding="utf-8")) for name in TASKS]
    model = HFLM(
        pretrained=load_model("models/base"), tokenizer=load_tokenizer("models/base"), device="cpu", batch_size=64
    )
    results = simple_evaluate(model, tasks=configs, task_manager=TaskManager(include_defaults=False), bootstrap_iters=0)
    above = {}
    for name, config in zip(TASKS, configs, strict=True):
        chance, samples = config["metadata"]["chance"], results["samples"][name]
        right = sum(int(sample["acc"]) for sample in samples)
        assert len(samples) >= 500
        assert binomtest(right, len(samples), chance, "greater").pvalue < 0.001, name
        above[name] = right / len(samples) - chance
    assert sum(points >= 0.1 for points in above.values()) >= 2, above


def test_the_held_out_perplexity_is_at_most_21():
    model, tokenizer = load_model(ROOT / "models/base"), load_tokenizer(ROOT / "models/base")
    texts = pd.read_parquet(ROOT / "data/text/test.parquet")["text"].tolist()
    windows = consecutive_windows(token_stream(texts, tokenizer), 128)
    with torch.no_grad():
        total = sum(model(input_ids=part, labels=part).loss.item() * len(part) for part in windows.split(64))
    assert math.exp(total / len(windows)) <= 21
