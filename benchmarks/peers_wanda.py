"""Run a clone of locuslab/wanda as it is, on one CPU and with the pinned transformers, for peers.py.

What its code of 2023 expects of CUDA and of transformers 4 is given to it here, from outside:

- its layers get the rotary embeddings that transformers 5 computes once for all of them;
- `get_loaders` returns our windows, instead of C4;
- `Tensor.cuda` and `torch.cuda.synchronize`, which it calls whatever the device, do nothing.
"""

import argparse
import contextlib
import io
import sys
from pathlib import Path

import torch
from transformers import PreTrainedModel


@torch.no_grad()
def prune(clone: Path, model: PreTrainedModel, windows: torch.Tensor, method: str, size: str) -> None:
    """Set half of the weights of all layers to zero by the authors' code; `size` is 2:4, or their own pattern."""
    sys.path.insert(0, str(clone))
    from lib import prune as theirs

    theirs.get_loaders = lambda *_, **__: ([(window[None], None) for window in windows], None)
    torch.Tensor.cuda = lambda self: self
    torch.cuda.synchronize = lambda: None
    model.seqlen, model.hf_device_map = windows.shape[1], {}
    embeddings = model.model.rotary_emb(torch.zeros(1), torch.arange(windows.shape[1])[None])
    for layer in model.model.layers:
        layer.forward = rotated(layer.forward, embeddings)
    arguments = argparse.Namespace(nsamples=len(windows), seed=0, sparsity_ratio=0.5, use_variant=False)
    kept, of = (2, 4) if size == "2:4" else (0, 0)
    with contextlib.redirect_stdout(io.StringIO()):
        getattr(theirs, f"prune_{method}")(arguments, model, None, torch.device("cpu"), kept, of)
    for layer in model.model.layers:
        del layer.forward


def rotated(forward, embeddings):
    """Return `forward` of a layer with the rotary embeddings given to it unless it is given some."""
    return lambda hidden, **given: forward(hidden, **({"position_embeddings": embeddings} | given))
