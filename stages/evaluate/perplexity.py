"""Perplexity by LLM-Pruner's convention.

Documents joined by a blank line, cut into consecutive windows of `sequence_length` tokens without overlap, the rest
dropped; every token of a window but its first is predicted from those before it in the window; the perplexity is the
exponential of the mean loss over all predicted tokens.
"""

import math
from pathlib import Path

import pandas as pd
import torch
import torch.nn.functional as F
from tqdm import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from stages.common.errors import UserError
from stages.common.windows import consecutive_windows, token_stream


def read_sets(folder: Path) -> dict[str, list[str]]:
    """Return the documents of every <set>.parquet of `folder`; UserError if there is none or one lacks its column."""
    sets = {}
    for file in sorted(folder.glob("*.parquet")):
        table = pd.read_parquet(file)
        if "text" not in table:
            raise UserError(f"{file} has no column `text`; its columns: {', '.join(map(str, table.columns))}")
        sets[file.stem] = table["text"].tolist()
    if not sets:
        raise UserError(f"{folder} holds no text to measure perplexity on (*.parquet)")
    return sets


def evaluation_windows(name: str, texts: list[str], tokenizer: PreTrainedTokenizerBase, length: int) -> torch.Tensor:
    """Return the windows of set `name`, shape (windows, length); UserError if its text fills none."""
    stream = token_stream(texts, tokenizer)
    windows = consecutive_windows(stream, length)
    if not len(windows):
        raise UserError(
            f"evaluate.sequence_length = {length} is more than {name} holds; allowed: 2 to {len(stream)} tokens"
        )
    return windows


@torch.no_grad()
def window_losses(model: PreTrainedModel, windows: torch.Tensor, batch_tokens: int, name: str) -> torch.Tensor:
    """Return each window's mean loss in nats per predicted token, shape (windows,), float64.

    `batch_tokens` bounds the tokens of one forward pass. Raises UserError for windows longer than the model's context
    and for a loss that is not finite.
    """
    length, context = windows.shape[1], model.config.max_position_embeddings
    if length > context:
        raise UserError(f"evaluate.sequence_length = {length} exceeds the model's context; allowed: 2 to {context}")
    losses = []
    batches = windows.split(max(1, batch_tokens // length))
    for batch in tqdm(batches, desc=f"perplexity of {name}", mininterval=1):
        batch = batch.to(model.device)
        logits = model(batch, use_cache=False).logits[:, :-1].float()
        token_losses = F.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten(), reduction="none")
        losses.append(token_losses.double().view(len(batch), -1).mean(1).cpu())
    result = torch.cat(losses)
    if not torch.isfinite(result).all():
        raise UserError(f"the loss on {name} is not finite: the model's activations overflow; use a wider base.dtype")
    return result


def perplexity(losses: torch.Tensor) -> float:
    """Return the perplexity of windows of equal length with these mean losses."""
    return math.exp(losses.mean().item())


def window_table(losses: dict[str, torch.Tensor], length: int) -> pd.DataFrame:
    """Return one row per window of every set: set, window (its index), loss, tokens (those predicted)."""
    tables = [
        pd.DataFrame({"set": key, "window": range(len(each)), "loss": each.numpy(), "tokens": length - 1})
        for key, each in losses.items()
    ]
    return pd.concat(tables, ignore_index=True)
