"""A model larger than the memory that the process may have."""

import json
import os
import resource
import subprocess
import sys

import pandas as pd
import pytest
import torch
from helpers import ROOT, tiny_tokenizer
from ruamel.yaml import YAML
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM

from stages.models.paging import paged_parts

GIB = 2**30
LAYERS, HIDDEN, MLP, VOCAB = 26, 2048, 8192, 8192
CALIBRATION = {"windows": 2, "length": 16}


def write_random_model(folder):
    """Write a random Llama in bfloat16 to `folder`, a file for each layer and an index; return its weights' bytes."""
    config = LlamaConfig(
        vocab_size=VOCAB, hidden_size=HIDDEN, intermediate_size=MLP, num_hidden_layers=LAYERS,
        num_attention_heads=16, num_key_value_heads=8, head_dim=128, tie_word_embeddings=False, dtype="bfloat16",
    )  # fmt: skip
    with torch.device("meta"):
        model = LlamaForCausalLM(config)
    names, size, weight_map = {module: name for name, module in model.named_modules()}, 0, {}
    numbers = torch.empty(2**26).uniform_(-0.03, 0.03).bfloat16()  # every weight begins somewhere else in them
    for part in (*paged_parts(model), model.model.norm):
        tensors = {f"{names[part]}.{name}": drawn(numbers, weight.shape) for name, weight in part.named_parameters()}
        save_file(tensors, folder / f"{names[part]}.safetensors")
        weight_map |= dict.fromkeys(tensors, f"{names[part]}.safetensors")
        size += sum(each.nbytes for each in tensors.values())
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    config.save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return size


def address_space_of_the_libraries() -> int:
    """Return the bytes of addresses that a process takes with what the stage imports: 3.5 GiB with torch for CUDA."""
    script = "import stages.prune.__main__; print(open('/proc/self/statm').read().split()[0])"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    return int(done.stdout) * resource.getpagesize()


def drawn(numbers, shape):
    """Return a tensor of `shape` of the random numbers from some place on."""
    start = int(torch.randint(len(numbers) - shape.numel(), ()))
    return numbers[start : start + shape.numel()].view(shape).clone()


@pytest.mark.slow
def test_a_model_of_3_gib_is_pruned_in_little_more_than_one(tmp_path):
    limit = address_space_of_the_libraries() + 9 * GIB // 8
    (tmp_path / "models/base").mkdir(parents=True)
    assert write_random_model(tmp_path / "models/base") > 3 * GIB
    (tmp_path / "data").mkdir()
    pd.DataFrame({"text": ["the quick brown fox " * 20]}).to_parquet(tmp_path / "data/calibration.parquet")
    yaml = YAML()
    content = yaml.load(ROOT / "params.yaml")
    ranges = {"attention_layers": [0, LAYERS], "mlp_layers": [0, LAYERS], "calibration": CALIBRATION}
    content["run"] = {"device": "cpu", "threads": 1, "precision": "float32", "processes": 1, "sharded": False}
    content["prune"].update({"method": "wanda_sp", "ratio": 0.5, "ratio_of": "groups", **ranges})

    content["prune"]["streaming"] = True
    yaml.dump(content, tmp_path / "params.yaml")
    done = subprocess.run(
        [sys.executable, "-m", "stages.prune"],
        cwd=tmp_path,
        # Arrow's own allocator would reserve a GiB of addresses at its first byte.
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "ARROW_DEFAULT_MEMORY_POOL": "system"},
        # The address space: weights, libraries, mapped files, all that the process has.
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    metrics = json.loads((tmp_path / "metrics/details/prune.json").read_text())
    assert metrics["ratio_in_pruned_layers"] == pytest.approx(0.5, abs=0.001)
    index = json.loads((tmp_path / "models/pruned/model.safetensors.index.json").read_text())
    assert index["metadata"]["total_parameters"] == metrics["parameters"]
    assert len(set(index["weight_map"].values())) == LAYERS + 3  # embeddings, head, the last norm
