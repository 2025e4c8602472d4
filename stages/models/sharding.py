"""Models larger than one GPU: every process holds its share of each decoder layer, and gathers a layer while it runs.

The weights are frozen (FSDP2, Zhao et al. 2023). Embeddings, norms behind the layers and the head are whole in every
process. All processes have to run the same layers the same number of times.
"""

from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel

from stages.common import processes
from stages.models import checkpoint
from stages.models.config import check_not_quantised, read_config
from stages.models.paging import replace
from stages.models.parts import Parts
from stages.models.tensors import model_tensors


def load_sharded(folder: str | Path, device: torch.device) -> PreTrainedModel:
    """Return the model in `folder` in its dtype, frozen, in evaluation mode, its layers sharded over the processes.

    One layer at a time is in memory as a whole. Raises UserError as checkpoint.load_model does.
    """
    folder = Path(folder)
    config = read_config(folder)
    check_not_quantised(config)
    model, stored = model_tensors(folder, config)
    model = model.requires_grad_(False).eval()
    parts = Parts(model)
    parts.rotary = type(parts.rotary)(config).to(device)  # it has no weights
    parts.embedding_scale = config.hidden_size**0.5
    checkpoint.note_origin(model, folder)
    mesh = init_device_mesh(device.type, (processes.size(),))
    names = {parameter: name for name, parameter in model.named_parameters()}
    layers = list(parts.layers)

    def read(module: nn.Module) -> None:
        for own, absent in list(module.named_parameters()):
            if absent.is_meta:
                weight = stored[names[absent]][...].to(device, absent.dtype)
                checkpoint.check_finite(folder, names[absent], weight)
                replace(module, own, nn.Parameter(weight, requires_grad=False))

    for layer in layers:
        read(layer)
        fully_shard(layer, mesh=mesh, reshard_after_forward=True)
    read(model)
    if config.tie_word_embeddings:
        model.tie_weights()
    decoder: Any = model.get_decoder()
    sharded = {parameter for layer in layers for parameter in layer.parameters()}
    kind = type(decoder)
    fully_shard(decoder, mesh=mesh, ignored_params=set(decoder.parameters()) - sharded)  # lets the layers share buffers
    decoder.__class__ = kind  # FSDP's own class is none that transformers knows the hidden states of
    return model


def is_sharded(weight: torch.Tensor) -> bool:
    """Return whether a weight is one of a sharded layer."""
    return isinstance(weight, DTensor)
