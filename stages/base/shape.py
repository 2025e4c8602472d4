"""base.source = shape: a config alone, with random weights. For structure, cost and speed; it models nothing."""

from pathlib import Path

import pandas as pd
import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

from stages.base.from_scratch import TEXT
from stages.base.params import BaseParams
from stages.base.tokenizer import train_tokenizer
from stages.common.checkpoint import check_config, load_tokenizer
from stages.common.errors import UserError
from stages.common.training import Progress


def make(
    params: BaseParams, device: torch.device, state: Path
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, Progress]:
    """Return a model of the config in folder `params.path` with weights drawn by the global seed, and a tokenizer.

    The tokenizer is the folder's own where it has one, else it is trained on data/text. Raises UserError for a folder
    without the config of a supported model, or a tokenizer that is larger than the config's vocabulary.
    """
    folder = Path(str(params.path))
    check_config(folder)
    config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    own = (folder / "tokenizer_config.json").is_file()
    tokenizer = load_tokenizer(folder) if own else train_tokenizer(text(), params.vocab_size)
    if len(tokenizer) > config.vocab_size:
        source = str(folder) if own else f"base.vocab_size = {params.vocab_size}"
        raise UserError(
            f"{source}: {len(tokenizer)} tokens are more than {folder / 'config.json'} has room for; "
            f"allowed: up to {config.vocab_size}"
        )
    # Drawn on the CPU and in the dtype that is saved: the same weights for any device, and no second copy.
    model = AutoModelForCausalLM.from_config(config, dtype=getattr(torch, params.dtype))
    return model.eval(), tokenizer, Progress()


def text() -> list[str]:
    """Return the training documents."""
    return pd.read_parquet(TEXT / "train.parquet")["text"].tolist()
