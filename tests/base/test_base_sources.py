"""base.source = hub, path, shape: as a command, with the real client against a hub on 127.0.0.1."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
import yaml
from forks import forking_python
from helpers import ROOT, tiny_llama, tiny_tokenizer
from hub_server import COMMIT, Hub
from safetensors.torch import load_file, save_file

from stages.base.params import BaseParams
from stages.base.shape import make
from stages.models.checkpoint import save_checkpoint

BASE = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))["base"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint") / "model"
    save_checkpoint(tiny_llama(), tiny_tokenizer(), folder)
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n")
    return folder


@pytest.fixture
def hub(checkpoint):
    with Hub(models={"org/tiny": {file.name: file.read_bytes() for file in checkpoint.iterdir()}}) as server:
        yield server


def run(folder: Path, hub: Hub | None = None, **changes) -> subprocess.CompletedProcess:
    """Run the stage in `folder` with section `base` changed; every request it makes goes to `hub`."""
    sections = {
        "run": {"device": "cpu", "threads": 1, "precision": "float32", "processes": 1, "sharded": False},
        "base": BASE | changes,
    }
    (folder / "params.yaml").write_text(yaml.safe_dump(sections), encoding="utf-8")
    (folder / "data" / "text").mkdir(parents=True, exist_ok=True)
    variables = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    variables |= {"PYTHONPATH": str(ROOT), "HF_ENDPOINT": hub.url if hub else "", "HF_HOME": str(folder / "cache")}
    command = [forking_python(), "-m", "stages.base"]
    return subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, check=False)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """Return the tensors of all files of weights of `folder`, of which each is in one."""
    files = [load_file(file) for file in sorted(folder.glob("*.safetensors"))]
    assert sum(map(len, files)) == len({name for file in files for name in file})
    return {name: tensor for file in files for name, tensor in file.items()}


def refusal(done: subprocess.CompletedProcess) -> str:
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr.strip().splitlines()[-1]


@pytest.mark.slow
def test_hub_and_path_give_the_checkpoint_in_the_asked_dtype(hub, checkpoint, tmp_path):
    wanted = load_file(checkpoint / "model.safetensors")
    done = run(tmp_path, hub, source="hub", model="org/tiny", revision=COMMIT)
    assert done.returncode == 0, done.stderr
    given = weights(tmp_path / "models/base")
    assert given.keys() == wanted.keys() and all(given[key].equal(wanted[key]) for key in wanted)
    assert (tmp_path / "models/base/tokenizer.json").is_file()
    card = tmp_path / "models/base/README.md"
    assert card.read_text() == (checkpoint / "README.md").read_text()
    card.unlink()
    hub.requests.clear()
    done = run(tmp_path, hub, source="path", path=str(checkpoint), dtype="bfloat16")
    assert done.returncode == 0, done.stderr
    given = weights(tmp_path / "models/base")
    assert all(given[key].equal(wanted[key].bfloat16()) for key in wanted)
    assert json.loads((tmp_path / "models/base/config.json").read_text())["dtype"] == "bfloat16"
    assert card.is_file()
    assert not hub.requests, "a network was used that the params do not ask for"


@pytest.mark.slow
def test_hub_gives_the_folder_that_path_gives(hub, checkpoint, tmp_path):
    folder = shutil.copytree(checkpoint, tmp_path / "shards")
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = {key: f"model-0000{1 + number % 2}-of-00002.safetensors" for number, key in enumerate(sorted(tensors))}
    for shard in set(names.values()):
        save_file({key: tensors[key] for key in names if names[key] == shard}, folder / shard, {"format": "pt"})
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": names}))
    (folder / "chat_template.jinja").write_text("{{ messages[0].content }}")
    # A tokenizer of vocab.json and merges.txt, as GPT-2 and Qwen have one.
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "GPT2Tokenizer", "eos_token": "<eos>"}')
    letters = "abcdefghijklmnopqrstuvwxyz"
    vocabulary = {token: number for number, token in enumerate(["<eos>", *letters, "ab", "Ġ"])}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("#version: 0.2\na b\n")
    unwanted = {"consolidated.safetensors": b"x", "original/params.json": b"{", "pytorch_model.bin": b"x"}
    hub.models["org/shards"] = {file.name: file.read_bytes() for file in folder.iterdir()} | unwanted
    outputs = []
    for source in ({"source": "hub", "model": "org/shards", "revision": "main"}, {"source": "path", "path": "shards"}):
        done = run(tmp_path, hub, **source)
        assert done.returncode == 0, done.stderr
        outputs.append({file.name: file.read_bytes() for file in (tmp_path / "models/base").iterdir()})
    assert outputs[0] == outputs[1]
    assert "chat_template.jinja" in outputs[0] and "README.md" in outputs[0]
    assert json.loads(outputs[0]["tokenizer.json"])["model"]["merges"] == [["a", "b"]]
    assert not any(path.endswith(name) for _, path, _ in hub.requests for name in unwanted)


@pytest.mark.slow
def test_shape_is_random_weights_of_the_config(hub, checkpoint, tmp_path):
    shape = tmp_path / "shape"
    shape.mkdir()
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copy(checkpoint / name, shape)
    saved = []
    for seed in (1, 2):
        done = run(tmp_path, hub, source="shape", path=str(shape), dtype="float16", seed=seed)
        assert done.returncode == 0, done.stderr
        saved.append((tmp_path / "models/base/model.safetensors").read_bytes())
    assert saved[0] != saved[1]
    torch.manual_seed(2)  # as the stage does
    params = BaseParams.model_validate(BASE | {"source": "shape", "path": str(shape), "dtype": "float16"})
    model, _, _ = make(params, torch.device("cpu"), tmp_path)
    weights, wanted = load_file(tmp_path / "models/base/model.safetensors"), load_file(checkpoint / "model.safetensors")
    assert {key: value.shape for key, value in weights.items()} == {key: value.shape for key, value in wanted.items()}
    assert all(value.equal(weights[key]) for key, value in model.state_dict().items())
    assert {str(value.dtype) for value in weights.values()} == {"torch.float16"}
    assert not hub.requests


@pytest.mark.slow
def test_mistakes_keep_the_earlier_model(hub, tmp_path):
    (tmp_path / "models/base").mkdir(parents=True)
    (tmp_path / "models/base/kept").touch()
    hub.models["org/pickle"] = {"config.json": b'{"model_type": "llama"}', "pytorch_model.bin": b"pickle"}
    hub.refused["org/gated"] = (403, "GatedRepo")
    for changes, message in [
        ({"source": "hub", "model": "org/none", "revision": "main"}, "model org/none at revision main: not on the hub"),
        ({"source": "hub", "model": "org/gated", "revision": "main"}, "access denied (403)"),
        ({"source": "hub", "model": "org/pickle", "revision": COMMIT}, "has no weights: no model.safetensors"),
        ({"source": "hub"}, "model = None; expected a model id on the hub, organisation/name, since source = 'hub'"),
        ({"source": "shape", "path": "nothing"}, "nothing is not a checkpoint: config.json is missing"),
    ]:
        assert message in refusal(run(tmp_path, hub, **changes))
        assert [file.name for file in (tmp_path / "models").rglob("*")] == ["base", "kept"]
