"""base.source = package: the one GGUF of an installed distribution, which is never imported."""

import json
import os
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, distribution

import pandas as pd
import pytest
import torch
import yaml
from forks import forking_python
from gguf_helpers import BASE, base_params, converted, install, sha256
from helpers import ROOT, tiny_llama
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from stages.base.package import make
from stages.common.errors import UserError
from stages.export.card import base_metadata
from stages.models.paging import save_model

FILE = "tiny_model/tiny.gguf"
CPU = torch.device("cpu")


@pytest.fixture
def gguf(tmp_path):
    return converted(tiny_llama(vocab=300, mlp=32), tmp_path / "tiny.gguf", "llama", "Q8_0")


@pytest.fixture
def site(tmp_path, monkeypatch):
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    return folder


def params(gguf, **changes):
    return base_params(source="package", package="tiny-model", sha256=sha256(gguf), **changes)


def test_the_file_is_found_without_an_import(gguf, site, tmp_path):
    install(site, {FILE: gguf.read_bytes()})
    model, tokenizer, _ = make(params(gguf), CPU, tmp_path / "state")
    assert "tiny_model" not in sys.modules
    save_model(model, tokenizer, tmp_path / "base")
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "base").config.num_hidden_layers == 3
    card = tmp_path / "state/gguf"
    assert "`tiny.gguf` of the Python package `tiny-model` 1.2" in (card / "README.md").read_text()
    assert base_metadata(card)["license"] == "mit"


@pytest.mark.parametrize(
    ("metadata", "licence"),
    [
        ("License-Expression: Apache-2.0\nLicense: MIT", "apache-2.0"),
        (f"License: {'Permission is hereby granted. ' * 9}", "unknown"),
        ("License: UNKNOWN", "unknown"),
        ("Summary: none named", "unknown"),
    ],
)
def test_the_licence_is_the_packages_where_the_file_names_none(metadata, licence, gguf, site, tmp_path):
    install(site, {FILE: gguf.read_bytes()}, metadata)
    make(params(gguf), CPU, tmp_path / "state")
    assert base_metadata(tmp_path / "state/gguf")["license"] == licence


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (None, "base.package = 'tiny-model' is not installed; `make setup` installs .* set base.source to train, gguf"),
        ([], "base.package = 'tiny-model' holds 0 GGUF files; expected exactly one; or set base.source to train"),
        (
            [FILE, "tiny_model/b.gguf"],
            r"holds 2 GGUF files \(tiny_model/b.gguf, tiny_model/tiny.gguf\); expected",
        ),
    ],
)
def test_none_or_several_files_are_refused(files, words, gguf, site, tmp_path):
    if files is not None:
        install(site, dict.fromkeys(files, gguf.read_bytes()))
    with pytest.raises(UserError, match=words):
        make(params(gguf), CPU, tmp_path / "state")


def test_a_file_that_is_gone_is_named(gguf, site, tmp_path):
    install(site, {FILE: gguf.read_bytes()})
    (site / FILE).unlink()
    with pytest.raises(UserError, match=r"base.package = 'tiny-model' lacks its file .*tiny\.gguf"):
        make(params(gguf), CPU, tmp_path / "state")


def test_another_hash_is_refused(gguf, site, tmp_path):
    install(site, {FILE: gguf.read_bytes() + b"\0"})
    with pytest.raises(UserError, match=rf"tiny\.gguf has sha256 \w+; expected base.sha256 = {sha256(gguf)}"):
        make(params(gguf), CPU, tmp_path / "state")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"source": "package", "package": None},
            "package = None; expected the name of an installed Python distribution, since source = 'package'",
        ),
        (
            {"source": "package", "sha256": None},
            "sha256 = None; expected the SHA-256 of its GGUF file, since source = 'package'",
        ),
        ({"sha256": "ABC"}, "sha256"),
        ({"source": "gguf", "path": None}, "path = None; expected a GGUF file, since source = 'gguf'"),
    ],
)
def test_what_a_source_needs_is_checked(changes, words):
    with pytest.raises(ValueError, match=words):
        base_params(**changes)


@pytest.mark.slow
def test_the_stage_writes_the_model_or_one_line(gguf, site, tmp_path):
    install(site, {FILE: gguf.read_bytes()})
    (tmp_path / "data/text").mkdir(parents=True)
    for split in ("train", "validation"):
        pd.DataFrame({"text": ["a"]}).to_parquet(tmp_path / f"data/text/{split}.parquet")
    outcomes = []
    for digest in (sha256(gguf), "0" * 64):
        base = BASE | {"source": "package", "package": "tiny-model", "sha256": digest, "dtype": "float16"}
        run = {"device": "cpu", "threads": 1, "precision": "float32", "processes": 1, "sharded": False}
        (tmp_path / "params.yaml").write_text(yaml.safe_dump({"run": run, "base": base}))
        variables = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{site}"}
        command = [forking_python(), "-m", "stages.base"]
        done = subprocess.run(command, cwd=tmp_path, env=variables, capture_output=True, text=True, check=False)
        assert (tmp_path / "models/base").is_dir(), done.stderr
        files = {file.name: file.read_bytes() for file in (tmp_path / "models/base").iterdir()}
        outcomes.append((done.returncode, files))
    assert [code for code, _ in outcomes] == [0, 2]
    assert outcomes[0][1] == outcomes[1][1]
    assert "Traceback" not in done.stderr
    assert done.stderr.strip().splitlines()[-1].startswith("espalier: base: ")
    assert {"README.md", "config.json", "generation_config.json", "tokenizer.json"} <= set(outcomes[0][1])
    weights = [load_file(file) for file in (tmp_path / "models/base").glob("*.safetensors")]
    assert {tensor.dtype for tensors in weights for tensor in tensors.values()} == {torch.float16}
    details = json.loads((tmp_path / "metrics/details/base.json").read_text())
    assert details["dequantised_from"] == "Q8_0"


@pytest.mark.slow
def test_the_default_model_knows_its_capitals_and_its_template(tmp_path):
    """The base of the project's own params, saved and loaded by plain transformers."""
    own = base_params()
    assert own.source == "package"
    try:
        distribution(str(own.package))
    except PackageNotFoundError:
        pytest.skip(f"{own.package} is not installed: the package index lacked it when `make setup` ran")
    model, tokenizer, _ = make(own, CPU, tmp_path / "state")
    save_model(model, tokenizer, tmp_path / "base")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "base")
    assert sum(weight.numel() for weight in model.parameters()) == 134_515_008
    prompt = tokenizer("The capital of France is", return_tensors="pt")
    generated = model.generate(**prompt, max_new_tokens=1, do_sample=False)[0, prompt.input_ids.shape[1] :]
    assert tokenizer.decode(generated) == " Paris"
    chat = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Hi"}], tokenize=False, add_generation_prompt=True
    )
    assert chat.endswith("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n")
    assert tokenizer(chat).input_ids.count(tokenizer.convert_tokens_to_ids("<|im_start|>")) == 3
    assert tokenizer.tokenize("in 2020\n7") == ["in", "Ġ", "2", "0", "2", "0", "Ċ", "7"]
    assert base_metadata(tmp_path / "state/gguf")["license"] == "apache-2.0"
