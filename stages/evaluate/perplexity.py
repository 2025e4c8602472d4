"""Perplexity by LLM-Pruner's convention.

Documents are joined by a blank line and cut into consecutive windows of `sequence_length` tokens without overlap; an
incomplete last window is dropped. Every token of a window but its first is predicted from those before it. The
perplexity is the exponential of the mean loss over all predicted tokens.
"""

import math
from pathlib import Path

import pandas as pd
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from stages.common import processes
from stages.common.errors import UserError
from stages.common.progress import Bar
from stages.common.windows import consecutive_windows, token_stream
from stages.evaluate.head import sliced_logits
from stages.evaluate.resume import Kept
from stages.models.parts import Head


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
            f"evaluate.sequence_length = {length} is more than {name} holds; expected 2 to {len(stream)} tokens"
        )
    return windows


def first_windows(windows: torch.Tensor, tokens: int | None) -> torch.Tensor:
    """Return the first windows, at most `tokens` tokens of them: published figures on a part of a text take these."""
    return windows if tokens is None else windows[: tokens // windows.shape[1]]


@torch.no_grad()
def window_losses(
    model: PreTrainedModel, windows: torch.Tensor, batch_tokens: int, name: str, kept: Kept | None = None
) -> torch.Tensor:
    """Return each window's mean loss in nats per predicted token, shape (windows,), float64.

    `batch_tokens` bounds the tokens of one forward pass; `kept` holds what an interrupted run has measured. Raises
    UserError for windows longer than the model's context and for a loss that is not finite.
    """
    length, context = windows.shape[1], model.config.max_position_embeddings
    if length > context:
        raise UserError(f"evaluate.sequence_length = {length} exceeds the model's context; expected 2 to {context}")
    batches = processes.share(list(windows.split(max(1, batch_tokens // length))))
    kept = kept or Kept()
    done = len(kept.results)
    with Bar(f"perplexity of {name}", len(batches), done) as bar:
        for batch in batches[done:]:
            losses = batch_losses(model, batch.to(model.device)).tolist()
            if not all(map(math.isfinite, losses)):
                raise UserError(
                    f"the loss on {name} is not finite: the model's activations overflow; use a wider base.dtype"
                )
            kept.add(losses)
            bar.advance(measured=f"perplexity {perplexity(flat(kept.results)):,.2f}")
    return flat(kept.collect())


def batch_losses(model: PreTrainedModel, windows: torch.Tensor) -> torch.Tensor:
    """Return each window's mean loss, shape (windows,), float64."""
    hidden = model.get_decoder()(input_ids=windows, use_cache=False).last_hidden_state[:, :-1].flatten(0, 1)
    targets = windows[:, 1:].flatten()
    losses = torch.empty(len(targets), dtype=torch.float64, device=windows.device)
    for positions, logits in sliced_logits(Head(model), hidden):
        losses[positions] = torch.nn.functional.cross_entropy(logits, targets[positions], reduction="none").double()
    return losses.view(len(windows), -1).mean(1)


def flat(losses: list[list[float]]) -> torch.Tensor:
    """Return the losses of all batches' windows in one row."""
    return torch.tensor([loss for batch in losses for loss in batch], dtype=torch.float64)


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
