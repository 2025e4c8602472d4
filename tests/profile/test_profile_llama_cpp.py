"""A GGUF is profiled in llama.cpp, and where that is not installed, its size alone."""

import json
from pathlib import Path

import pytest
from helpers import ROOT, tiny_llama
from ruamel.yaml import YAML

from stages.base.tokenizer import train_tokenizer
from stages.common import llama_cpp
from stages.export.formats import write
from stages.profile.__main__ import main


@pytest.fixture
def metrics(tmp_path, monkeypatch):
    """A function that profiles a tiny model as a float16 GGUF and returns the metrics."""
    monkeypatch.chdir(tmp_path)
    content = YAML().load(ROOT / "params.yaml")
    content["profile"] |= {"sequence_length": 16, "decode_tokens": 4, "repetitions": 1}
    content["run"]["threads"] = 1
    YAML().dump(content, Path("params.yaml"))
    model = tiny_llama(vocab=300)
    write(model, train_tokenizer(["a text to learn from"], 300), "gguf-f16", Path("export"))

    def profile():
        main("tiny", "export")
        return model, json.loads(Path("metrics/profile/tiny.json").read_text())

    return profile


def test_without_llama_cpp_there_are_size_and_counts(metrics, monkeypatch, capsys):
    monkeypatch.setattr(llama_cpp, "is_installed", lambda: False)
    model, found = metrics()
    matrices = sum(parameter.numel() for parameter in model.parameters() if parameter.ndim == 2)
    vectors = sum(parameter.numel() for parameter in model.parameters() if parameter.ndim == 1)
    assert set(found) == {"parameters", "parameters_nonzero", "macs", "gmacs", "weights_mib"}
    assert found["parameters"] == matrices + vectors
    assert found["weights_mib"] == (2 * matrices + 4 * vectors) / 2**20
    assert "no memory, no speed: llama-cpp-python is not installed" in capsys.readouterr().out


@pytest.mark.skipif(not llama_cpp.is_installed(), reason=llama_cpp.MISSING)
def test_memory_and_speed_are_llama_cpps(metrics):
    _, found = metrics()
    assert found["peak_memory_mib"] > found["weights_mib"]
    assert found["prefill_tokens_per_second"] > 0 and found["decode_tokens_per_second"] > 0
