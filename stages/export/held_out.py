"""The held-out text on which exports are compared."""

from pathlib import Path

import pandas as pd
from transformers import PreTrainedTokenizerBase

from stages.common.errors import UserError
from stages.common.windows import consecutive_windows, token_stream
from stages.export.verify import HeldOut

WINDOWS, LINES = 64, 1000


def read_held_out(folder: Path, tokenizer: PreTrainedTokenizerBase, length: int) -> HeldOut:
    """Return the first WINDOWS windows of `length` tokens and LINES lines, from the first text in `folder`.

    The lines are every n-th of those that are not blank, so that they come from the whole text.
    """
    files = sorted(folder.glob("*.parquet"))
    if not files:
        raise UserError(f"{folder} holds no text to compare exports on (*.parquet)")
    texts = pd.read_parquet(files[0])["text"].tolist()
    windows = consecutive_windows(token_stream(texts, tokenizer), length)[:WINDOWS]
    if not len(windows):
        raise UserError(f"evaluate.sequence_length = {length} is more than {files[0]} holds; lower it")
    lines = [line for text in texts for line in text.splitlines() if line.strip()]
    return HeldOut(windows, lines[:: max(1, len(lines) // LINES)][:LINES])
