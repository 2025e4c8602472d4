"""Gradients: what is kept for the backward pass, and what is computed twice for it."""

import subprocess
import sys
from contextlib import nullcontext

import pytest
import torch
from helpers import ROOT, tiny_llama
from torch.utils.flop_counter import FlopCounterMode

from stages.prune import gradients as module


def measure(windows: torch.Tensor, scored: range = range(6)) -> tuple[list[torch.Tensor], int, int]:
    """Return the gate matrices' gradients, the bytes that autograd kept, and the multiplications of all products."""
    model = tiny_llama(layers=6)
    weights = [model.model.layers[i].mlp.gate_proj.weight for i in scored]
    found: dict[torch.Tensor, torch.Tensor] = {}
    held = 0

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        nonlocal held
        held += tensor.nbytes
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor), FlopCounterMode(display=False) as flops:
        module.gradients(model, windows, weights, lambda weight, grad, _: found.update({weight: grad.clone()}), False)
    assert "forward" not in vars(model.model.layers[0]), "the layers are as they were"
    return [found[weight] for weight in weights], held, flops.get_total_flops()


def test_same_gradients_from_less_memory_and_no_product_twice(windows, monkeypatch):
    recomputed, less, products = measure(windows)
    monkeypatch.setattr(module, "recomputed", lambda model: nullcontext())
    whole, more, without = measure(windows)
    assert all(torch.equal(one, other) for one, other in zip(recomputed, whole, strict=True))
    assert less < more / 3
    assert products == without


def test_layers_above_the_scored_compute_two_products_again(windows, monkeypatch):
    recomputed, _, products = measure(windows, range(3))
    monkeypatch.setattr(module, "recomputed", lambda model: nullcontext())
    whole, _, without = measure(windows, range(3))
    assert all(torch.equal(one, other) for one, other in zip(recomputed, whole, strict=True))
    gate_and_up = 2 * 2 * windows.numel() * 32 * 24
    assert products == without + 3 * gate_and_up


def test_the_loss_in_parts_has_the_gradient_of_the_whole(windows, monkeypatch):
    monkeypatch.setattr(module, "TOKENS_OF_LOGITS", windows.shape[1])
    model = tiny_llama()
    hidden = model.model(windows).last_hidden_state.detach().requires_grad_()
    logits = model.lm_head(hidden)
    model.loss_function(logits=logits, labels=windows, vocab_size=model.config.vocab_size).backward()
    found = module.loss_gradient(model, hidden.detach(), windows, 1.0)
    torch.testing.assert_close(found, hidden.grad)


def test_a_failure_leaves_the_layers_as_they_were():
    model = tiny_llama()
    with pytest.raises(ZeroDivisionError), module.recomputed(model):
        1 / 0  # noqa: B018
    assert all("forward" not in vars(layer) for layer in model.model.layers)


FREED = """
import sys, torch
from stages.prune.memory import return_freed_memory

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096 / 2**20

if sys.argv[1] == "returned":
    return_freed_memory()
torch.set_num_threads(1)
torch.ones(30, 2**18)  # freed at once: from here on glibc serves such sizes from its heap
matrices = [torch.ones(20, 2**18) for _ in range(12)]  # 20 MiB each
before = resident()
for i in range(12):
    matrices[i] = torch.ones(14, 2**18)
print(before - resident())
"""


@pytest.mark.slow
def test_what_is_freed_goes_back_to_the_system(tmp_path):
    """12 matrices of 20 MiB, each replaced by one of 14 MiB while the others stay."""
    run = [sys.executable, "-c", FREED]
    freed = {mode: float(subprocess.check_output([*run, mode], cwd=ROOT)) for mode in ("returned", "kept")}
    assert freed["returned"] > 60 > freed["kept"]
