"""Write the tuned model: in memory, or where that holds shares of its layers only, layer by layer from its files."""

from pathlib import Path

import torch

from stages.models.checkpoint import save_checkpoint
from stages.models.paging import bring_in, load_paged, save_model
from stages.models.parts import Parts
from stages.tune.sparsity import adapted_layers
from stages.tune.tuning import Tuned


def save_merged(tuned: Tuned, start: Path, folder: Path) -> None:
    """Write `tuned`, which started from the model in `start`, merged, with its tokenizer, to `folder`."""
    if not tuned.sharded:
        return save_checkpoint(tuned.method.merge(tuned.model), tuned.tokenizer, folder)
    paged = load_paged(start, folder)
    layers = Parts(tuned.method.trained(tuned.model)).layers
    for layer, adapted in zip(Parts(paged).layers, layers, strict=True):
        bring_in(layer)
        names = {module: name for name, module in adapted.named_modules()}
        for linear in adapted_layers(adapted):
            (adapter,) = linear.active_adapters
            weight = layer.get_submodule(names[linear]).weight
            with torch.no_grad():
                weight.add_(linear.get_delta_weight(adapter).to(weight))
    save_model(paged, tuned.tokenizer, folder)
