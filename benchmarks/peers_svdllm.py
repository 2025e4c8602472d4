"""Run a clone of AIoT-MLSys-Lab/SVD-LLM as it is, with the pinned transformers, for peers.py.

Whitening, without the local update. Its code computes the whitening and the two thin matrices. Its own layers are of
transformers 4 and have as many key/value heads as query heads; in their place it gets the pinned transformers' layers
with the same names.
"""

import contextlib
import io
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn
from transformers import LlamaConfig, PreTrainedModel
from transformers.models.llama.modeling_llama import LlamaAttention, LlamaMLP


@torch.no_grad()
def prune(clone: Path, model: PreTrainedModel, windows: torch.Tensor, ratio: float) -> None:
    """Replace the matrices of all layers by two thin ones each, of `ratio` times the parameters together."""
    layers = ModuleType("component.svd_llama")
    layers.SVD_LlamaAttention = lambda config, ratio: thin(LlamaAttention(config, 0), "qkvo")
    layers.SVD_LlamaMLP = mlp
    sys.modules |= {"component": ModuleType("component"), "component.svd_llama": layers}
    for name, classes in {
        "component.svd_mistral": ("SVD_MistralAttention", "SVD_MistralMLP"),
        "component.svd_opt": ("SVDOPTDecoderLayer",),
        "evaluater": (),
    }.items():
        sys.modules[name] = ModuleType(name)
        for each in classes:
            setattr(sys.modules[name], each, None)
    sys.path.insert(0, str(clone))
    theirs = import_module("SVDLLM")
    with contextlib.redirect_stdout(io.StringIO()):
        batches = [{"input_ids": window[None], "use_cache": torch.tensor(False)} for window in windows]
        matrices = theirs.profle_svdllm("llama", model, batches, "cpu")
        theirs.whitening("llama", model, matrices, ratio, "cpu")


def mlp(hidden_size: int, intermediate_size: int, hidden_act: str, ratio: float) -> nn.Module:
    """Return an MLP of thin matrices."""
    sizes = {"hidden_size": hidden_size, "intermediate_size": intermediate_size, "hidden_act": hidden_act}
    return thin(LlamaMLP(LlamaConfig(**sizes, num_attention_heads=1)), ("gate", "up", "down"))


def thin(module: nn.Module, names: Any) -> nn.Module:
    """Return `module` with two matrices in place of each of these; their code sets the weights."""
    for name in names:
        first, second = (nn.Linear(1, 1, bias=False) for _ in range(2))
        setattr(module, f"{name}_v_proj", first)
        setattr(module, f"{name}_u_proj", second)
        setattr(module, f"{name}_proj", nn.Sequential(first, second))
    return module
