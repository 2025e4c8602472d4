"""base.source = path: a local checkpoint."""

from pathlib import Path

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from stages.base.params import BaseParams
from stages.common.errors import UserError
from stages.common.training import Progress
from stages.models.checkpoint import load_tokenizer
from stages.models.config import read_config
from stages.models.folder import check_inside, small_files, weight_files
from stages.models.paging import load_paged


def make(
    params: BaseParams, device: torch.device, state: Path
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, Progress]:
    """Return the model and the tokenizer in folder `params.path`, and the progress of no training.

    Raises UserError, naming the folder, if it is not a complete checkpoint of a supported model with finite weights.
    """
    folder = Path(str(params.path))
    if not folder.is_dir():
        raise UserError(f"base.path = {params.path!r} is not a folder; expected a Hugging Face model folder")
    return load(folder, params, state)


def load(folder: Path, params: BaseParams, state: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, Progress]:
    """Return the model and the tokenizer in `folder`, and the progress of no training.

    The model is a paged one in the params' dtype, so that it may be larger than memory. Raises UserError, naming the
    file, for whatever in the folder is damaged, leads out of it, or does not fit the rest.
    """
    check_inside(folder, small_files(folder))
    config = read_config(folder)
    check_inside(folder, weight_files(folder))
    tokenizer = load_tokenizer(folder)
    check_fits(tokenizer, config.vocab_size, folder, folder)
    return load_paged(folder, state, dtype=getattr(torch, params.dtype)), tokenizer, Progress()


def check_fits(tokenizer: PreTrainedTokenizerBase, rows: int, folder: Path, source: object) -> None:
    """Raise UserError if the tokenizer of `source` has ids that the embeddings of the model in `folder` lack."""
    largest = max(tokenizer.get_vocab().values(), default=-1)
    if largest >= rows:
        raise UserError(
            f"{source}: token ids go up to {largest}, beyond the vocabulary in {folder / 'config.json'}; "
            f"expected at most {rows - 1}"
        )
