"""Read the training and validation data."""

from pathlib import Path

import pandas as pd
import torch
from transformers import PreTrainedTokenizerBase

from stages.common.errors import UserError
from stages.common.windows import consecutive_windows, token_stream
from stages.tune.examples import Example, instruction_examples, text_examples
from stages.tune.params import TuneParams

TEXT = Path("data/calibration.parquet")
INSTRUCTIONS = Path("data/instructions.parquet")
VALIDATION = Path("data/text/validation.parquet")
FILES = {"text": [TEXT], "instructions": [INSTRUCTIONS], "both": [TEXT, INSTRUCTIONS]}  # by tune.data


def training_examples(params: TuneParams, tokenizer: PreTrainedTokenizerBase) -> list[Example]:
    """Return all examples of `params.data`; `both` is the text's windows and the instructions in one pool."""
    examples = []
    if params.data in ("text", "both"):
        examples += text_examples(read(TEXT, ["text"])["text"].tolist(), tokenizer, params.window)
    if params.data in ("instructions", "both"):
        rows = read(INSTRUCTIONS, ["instruction", "input", "output"])
        examples += instruction_examples(rows, tokenizer, params.window, template(params, tokenizer))
    if not examples:
        where = " and ".join(map(str, FILES[params.data]))
        raise UserError(
            f"tune.window = {params.window} leaves nothing of {where} to learn; "
            "use a smaller window for text, or one longer than an instruction's prompt"
        )
    if len(examples) < params.batch_size:
        raise UserError(
            f"tune.batch_size = {params.batch_size} is more than the training data holds; "
            f"expected 1 to {len(examples)} sequences"
        )
    return examples


def template(params: TuneParams, tokenizer: PreTrainedTokenizerBase) -> str:
    """Return the template of instructions: alpaca, or chat if the tokenizer has a chat template."""
    if params.template == "chat" and not tokenizer.chat_template:
        raise UserError("tune.template = 'chat': the tokenizer of models/base has no chat template; set it to alpaca")
    if params.template == "auto":
        return "chat" if tokenizer.chat_template else "alpaca"
    return params.template


def validation_examples(params: TuneParams, tokenizer: PreTrainedTokenizerBase) -> list[Example]:
    """Return `params.validation_sequences` windows of the validation text, drawn by the seed; all if it holds fewer.

    A line says so then. Raises UserError if it holds none.
    """
    stream = token_stream(read(VALIDATION, ["text"])["text"].tolist(), tokenizer)
    windows = consecutive_windows(stream, params.window)
    if not len(windows):
        raise UserError(
            f"tune.window = {params.window} is more than {VALIDATION} holds; expected 2 to {len(stream)} tokens, "
            "or a larger data.validation_share"
        )
    if len(windows) < params.validation_sequences:
        print(
            f"tune: {VALIDATION} holds {len(windows)} of tune.validation_sequences = {params.validation_sequences}; "
            "the validation loss is taken over those",
            flush=True,
        )
    order = torch.randperm(len(windows), generator=torch.Generator().manual_seed(params.seed))
    return [Example(windows[index], windows[index]) for index in order[: params.validation_sequences].tolist()]


def read(file: Path, columns: list[str]) -> pd.DataFrame:
    """Return columns of a parquet file; UserError if it is missing, damaged, empty, or lacks one of them."""
    if not file.is_file():
        raise UserError(f"{file} is missing; stage data writes it")
    try:
        rows = pd.read_parquet(file)
    except ValueError as error:
        raise UserError(f"{file} is not a Parquet file ({' '.join(str(error).split())})") from None
    missing = [column for column in columns if column not in rows]
    if missing:
        raise UserError(f"{file} lacks the columns {', '.join(missing)}; it has {', '.join(map(str, rows))}")
    if rows.empty:
        raise UserError(f"{file} is empty; expected at least one row")
    return rows[columns]
