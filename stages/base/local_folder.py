"""base.source = path: a checkpoint that is already on the disk."""

from pathlib import Path

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from stages.base.params import BaseParams
from stages.common.checkpoint import load_tokenizer
from stages.common.errors import UserError
from stages.common.paging import load_paged
from stages.common.training import Progress


def make(
    params: BaseParams, device: torch.device, state: Path
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, Progress]:
    """Return the model and the tokenizer in folder `params.path`, and the progress of no training.

    The model is a paged one, so that it may be larger than memory.
    Raises UserError, naming the folder, if it is not a complete checkpoint of a supported model with finite weights.
    """
    folder = Path(str(params.path))
    if not folder.is_dir():
        raise UserError(f"base.path = {params.path!r} is no folder; allowed: a Hugging Face model folder")
    return load_paged(folder, state), load_tokenizer(folder), Progress()
