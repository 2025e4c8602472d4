"""base.source = shape: a config with random weights, to measure structure, cost and speed; it models nothing."""

from pathlib import Path

import pandas as pd
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

from stages.base.from_scratch import TEXT
from stages.base.local_folder import check_fits
from stages.base.params import BaseParams
from stages.base.tokenizer import train_tokenizer
from stages.common.training import Progress
from stages.models.checkpoint import has_tokenizer, load_tokenizer
from stages.models.config import check_not_quantised, empty_model, read_config
from stages.models.folder import check_inside, small_files


def make(
    params: BaseParams, device: torch.device, state: Path
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, Progress]:
    """Return a model of the config in folder `params.path` with weights drawn by the global seed, and a tokenizer.

    The tokenizer is the folder's own where it has one, else it is trained on data/text. Raises UserError for a folder
    without the config of a supported model, or a tokenizer that is larger than the config's vocabulary.
    """
    folder = Path(str(params.path))
    check_inside(folder, small_files(folder))
    config = read_config(folder)
    check_not_quantised(config)
    empty_model(config, folder)  # refuses what no model can be built from before any memory is taken
    own = has_tokenizer(folder)
    tokenizer = load_tokenizer(folder) if own else train_tokenizer(text(), params.vocab_size)
    check_fits(tokenizer, config.vocab_size, folder, folder if own else f"base.vocab_size = {params.vocab_size}")
    # Drawn on the CPU and in the dtype that is saved: the same weights for any device, and no second copy.
    model = AutoModelForCausalLM.from_config(config, dtype=getattr(torch, params.dtype))
    return model.eval(), tokenizer, Progress()


def text() -> list[str]:
    """Return the training documents."""
    return pd.read_parquet(TEXT / "train.parquet")["text"].tolist()
