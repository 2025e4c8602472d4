"""The three models of the pipeline."""

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from stages.common.params import FOLDERS
from stages.models.checkpoint import load_model, load_tokenizer

Model = tuple[PreTrainedModel, PreTrainedTokenizerBase]


def load(name: str, device: torch.device) -> Model:
    """Return model and tokenizer of `name`, one of FOLDERS; UserError where the pipeline has not made it yet."""
    return load_model(FOLDERS[name], device), load_tokenizer(FOLDERS[name])
