"""Store the weights in the precision of their matrix products."""

import torch
from torch import nn
from transformers import PreTrainedModel


def cast_weights(model: PreTrainedModel) -> None:
    """Round the weights of the linear layers as the surrounding autocast would for every product, if there is one.

    The results are the same to the bit. Autocast would keep a rounded copy of each weight beside the original; this
    holds only the rounded one. A head that is also the embedding stays as it is.
    """
    device = model.device.type
    if not torch.is_autocast_enabled(device):
        return
    embedding = model.get_input_embeddings().weight
    for module in model.modules():
        if type(module) is nn.Linear and module.weight.dtype == torch.float32 and module.weight is not embedding:
            module.weight = nn.Parameter(module.weight.to(torch.get_autocast_dtype(device)), requires_grad=False)
