"""Parameters, memory and speed."""

import json
import os
import subprocess
import sys

import pytest
import torch
import yaml
from helpers import ROOT, tiny_llama, tiny_tokenizer
from pydantic import ValidationError

from stages.models.checkpoint import save_checkpoint
from stages.profile import memory
from stages.profile.memory import MIB, memory_metrics, parameter_counts, weight_bytes
from stages.profile.params import ProfileParams
from stages.profile.speed import speed_metrics


def test_tied_parameters_count_once():
    tied, untied = tiny_llama(tied=True), tiny_llama()
    embedding = 64 * 32
    assert parameter_counts(untied)["parameters"] - parameter_counts(tied)["parameters"] == embedding
    assert weight_bytes(untied) - weight_bytes(tied) == 4 * embedding


def test_every_parameter_counts():
    """32 x 64 twice for the vocabulary; per layer q, o: 32 x 32, k, v: 32 x 16, MLP 3 x 32 x 24, norms 2 x 32."""
    assert parameter_counts(tiny_llama())["parameters"] == 2 * 2048 + 3 * (2048 + 1024 + 2304 + 64) + 32


def test_bytes_follow_the_dtype():
    model = tiny_llama()
    buffers = sum(buffer.numel() * buffer.element_size() for buffer in model.buffers())
    parameters = parameter_counts(model)["parameters"]
    assert weight_bytes(model) == 4 * parameters + buffers
    rotary = model.model.rotary_emb.inv_freq.numel()
    assert weight_bytes(model.bfloat16()) - 2 * parameters in (buffers, 2 * 2 * rotary)


@pytest.mark.skipif(not memory.CLEAR_REFS.is_file(), reason="needs Linux's /proc")
def test_the_peak_holds_the_logits_and_the_weights():
    """The logits of 256 positions x 40,000 words in float32 are 39 MiB, and little else is large."""
    torch.ones(200 * 2**20 // 4)  # an earlier peak, which must not count
    model = tiny_llama(vocab=40_000)
    logits = 256 * 40_000 * 4 / MIB
    metrics = memory_metrics(model, torch.zeros(1, 256, dtype=torch.int64))
    assert (metrics["memory_on_cuda"], metrics["weights_mib"]) == (0, weight_bytes(model) / MIB)
    assert logits * 0.95 < metrics["peak_memory_mib"] - metrics["weights_mib"] < logits * 1.5


def test_no_peak_where_the_system_does_not_tell(monkeypatch, tmp_path):
    monkeypatch.setattr(memory, "CLEAR_REFS", tmp_path / "missing")
    metrics = memory_metrics(tiny_llama(), torch.zeros(1, 8, dtype=torch.int64))
    assert list(metrics) == ["memory_on_cuda", "weights_mib"] and metrics["memory_on_cuda"] == 0


def test_speed_divides_tokens_by_time(monkeypatch):
    """By this clock 10 tokens take one second and 5 steps two, and the pass to warm up does not count."""
    ticks = iter([0, 100, 200, 0, 1, 3, 0, 1, 3])
    monkeypatch.setattr("stages.profile.speed.clock", lambda tokens: next(ticks))
    model, cached = tiny_llama(), []

    def note(module, args, options):
        cache = options.get("past_key_values")
        cached.append(cache.get_seq_length() if cache else 0)

    model.register_forward_pre_hook(note, with_kwargs=True)
    metrics = speed_metrics(model, torch.zeros(1, 10, dtype=torch.int64), decode_tokens=5, repetitions=2)
    assert metrics == {"prefill_tokens_per_second": 10, "decode_tokens_per_second": 2.5}
    assert cached == [0, 10, 11, 12, 13, 14] * 3


@pytest.mark.slow
def test_the_command(tmp_path):
    save_checkpoint(tiny_llama(), tiny_tokenizer(), tmp_path / "model")
    sections = {
        "run": {"device": "cpu", "threads": 1, "precision": "float32", "processes": 1, "sharded": False},
        "models": {"mine": "model"},
        "profile": {"sequence_length": 16, "decode_tokens": 4, "repetitions": 2},
    }
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(sections))
    command = [sys.executable, "-m", "stages.profile", "profile@mine"]
    result = subprocess.run(
        command, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    folders = [tmp_path / "metrics" / name for name in ("profile", "details/profile")]
    metrics = {key: value for each in folders for key, value in json.loads((each / "mine.json").read_text()).items()}
    assert metrics["gmacs"] == metrics["macs"] / 1e9
    assert {"parameters", "parameters_nonzero", "weights_mib", "prefill_tokens_per_second"} <= set(metrics)
    assert metrics.pop("memory_on_cuda") == 0
    assert all(value > 0 for value in metrics.values())


@pytest.mark.parametrize("key", ["sequence_length", "decode_tokens", "repetitions"])
def test_values_that_are_not_allowed(key):
    allowed = {"sequence_length": 16, "decode_tokens": 4, "repetitions": 2}
    ProfileParams.model_validate(allowed)
    with pytest.raises(ValidationError):
        ProfileParams.model_validate(allowed | {key: 0})


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_memory_is_measured():
    model = tiny_llama().cuda()
    metrics = memory_metrics(model, torch.zeros(1, 16, dtype=torch.int64, device="cuda"))
    assert metrics["memory_on_cuda"] == 1
    assert metrics["weights_mib"] >= weight_bytes(model) / MIB
    assert metrics["peak_memory_mib"] > metrics["weights_mib"]
