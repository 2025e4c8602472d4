"""Recomputed activations: the same gradients from less memory."""

from contextlib import nullcontext

import pytest
import torch
from helpers import tiny_llama

from stages.prune import gradients as module


def measure(windows: torch.Tensor) -> tuple[list[torch.Tensor], int]:
    """Return the gradients of the gate matrices, and the bytes that the forward pass left for the backward."""
    model = tiny_llama(layers=6)
    weights = [model.model.layers[i].mlp.gate_proj.weight for i in range(6)]
    found: dict[torch.Tensor, torch.Tensor] = {}
    held = 0

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        nonlocal held
        held += tensor.nbytes
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        module.gradients(model, windows, weights, lambda weight, grad, _: found.update({weight: grad.clone()}), False)
    assert "forward" not in vars(model.model.layers[0]), "the layers are as they were"
    return [found[weight] for weight in weights], held


def test_same_gradients_from_less_memory(windows, monkeypatch):
    recomputed, less = measure(windows)
    monkeypatch.setattr(module, "recomputed", lambda model: nullcontext())
    whole, more = measure(windows)
    assert all(torch.equal(one, other) for one, other in zip(recomputed, whole, strict=True))
    assert less < more / 3


def test_a_failure_leaves_the_layers_as_they_were():
    model = tiny_llama()
    with pytest.raises(ZeroDivisionError), module.recomputed(model):
        1 / 0  # noqa: B018
    assert all("forward" not in vars(layer) for layer in model.model.layers)
