"""base.source = hub: a model of a Hugging Face hub at a pinned revision."""

from pathlib import Path

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from stages.base.params import BaseParams
from stages.common.checkpoint import load_tokenizer
from stages.common.hub import fetch
from stages.common.paging import load_paged
from stages.common.training import Progress

# safetensors alone: the pickles that many repositories hold beside them could run code.
FILES = ["*.json", "*.safetensors", "tokenizer.model", "README.md"]


def make(
    params: BaseParams, device: torch.device, state: Path
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, Progress]:
    """Return model and tokenizer of `params.model` at `params.revision`, and the progress of no training.

    The model is a paged one, so that it may be larger than memory.
    Raises UserError for what cannot be fetched, and for what is not a complete checkpoint of a supported model.
    """
    folder = fetch("model", str(params.model), str(params.revision), FILES).folder
    return load_paged(folder, state), load_tokenizer(folder), Progress()
