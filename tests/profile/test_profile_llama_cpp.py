"""A GGUF is profiled in llama.cpp, and where that is not installed, its size alone."""

import json
from pathlib import Path

import pytest
from helpers import ROOT, tiny_llama
from ruamel.yaml import YAML

from stages.base.tokenizer import train_tokenizer
from stages.common import llama_cpp
from stages.export.formats import write
from stages.profile.__main__ import COMPARED, main

FOLDERS = ("profile", "details/profile")


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

    def profile(name: str = "tiny"):
        main(name, "export")
        return model, *(json.loads(Path(f"metrics/{folder}/{name}.json").read_text()) for folder in FOLDERS)

    return profile


def test_without_llama_cpp_there_are_size_and_counts(metrics, monkeypatch, capsys):
    monkeypatch.setattr(llama_cpp, "is_installed", lambda: False)
    model, found, details = metrics()
    matrices = sum(parameter.numel() for parameter in model.parameters() if parameter.ndim == 2)
    vectors = sum(parameter.numel() for parameter in model.parameters() if parameter.ndim == 1)
    assert set(found) == {"parameters", "gmacs", "weights_mib"}
    assert set(details) == {"parameters_nonzero", "macs"}
    assert found["parameters"] == matrices + vectors
    assert found["weights_mib"] == (2 * matrices + 4 * vectors) / 2**20
    assert "no memory, no speed: llama-cpp-python is not installed" in capsys.readouterr().out


@pytest.mark.skipif(not llama_cpp.is_installed(), reason=llama_cpp.MISSING)
def test_memory_and_speed_are_llama_cpps(metrics):
    _, found, details = metrics()
    assert found["peak_memory_mib"] > found["weights_mib"]
    assert details["prefill_tokens_per_second"] > 0 and found["decode_tokens_per_second"] > 0


def test_a_recovered_model_has_the_costs_of_the_model_before_it_and_so_no_metrics(metrics, monkeypatch):
    monkeypatch.setattr(llama_cpp, "is_installed", lambda: False)
    _, found, details = metrics("tuned")
    assert found == {} and {*COMPARED[:3]} <= set(details)
