"""Text and instructions into training examples: tokens, and labels that mask what is not to be learnt."""

from typing import NamedTuple

import pandas as pd
import torch
from transformers import PreTrainedTokenizerBase

from stages.common.windows import consecutive_windows, token_stream

IGNORE = -100  # the label that cross_entropy leaves out

# The prompt template of Stanford Alpaca, with and without an input.
ALPACA_WITH_INPUT = (
    "Below is an instruction that describes a task, paired with an input that provides further context. "
    "Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:\n"
)
ALPACA = (
    "Below is an instruction that describes a task. "
    "Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{instruction}\n\n### Response:\n"
)


class Example(NamedTuple):
    """One training sequence: two int64 vectors of one length; labels are the tokens, or IGNORE."""

    tokens: torch.Tensor
    labels: torch.Tensor


def text_examples(texts: list[str], tokenizer: PreTrainedTokenizerBase, window: int) -> list[Example]:
    """Return the non-overlapping windows of the joined documents; every token is learnt."""
    return [Example(tokens, tokens) for tokens in consecutive_windows(token_stream(texts, tokenizer), window)]


def instruction_examples(rows: pd.DataFrame, tokenizer: PreTrainedTokenizerBase, window: int) -> list[Example]:
    """Return one example per row of columns instruction, input, output: the Alpaca prompt, the output, end of text.

    The prompt is masked. A sequence is cut after `window` tokens; one whose prompt leaves no room is left out.
    """
    prompts = [alpaca_prompt(row.instruction, row.input) for row in rows.itertuples()]
    texts = [prompt + output for prompt, output in zip(prompts, rows["output"], strict=True)]
    # Prompt and output in one go, as in use the tokens across their border are what the model sees. The empty list
    # would confuse the tokenizer.
    encoded = tokenizer(texts, return_offsets_mapping=True, verbose=False) if texts else {"input_ids": []}
    end = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    examples = []
    for prompt, ids, offsets in zip(prompts, encoded["input_ids"], encoded.get("offset_mapping", []), strict=True):
        # A token is learnt if it starts in the output; special tokens have the empty span (0, 0).
        labels = [token if start >= len(prompt) else IGNORE for token, (start, _) in zip(ids, offsets, strict=True)]
        tokens = torch.tensor((ids + end)[:window])
        example = Example(tokens, torch.tensor((labels + end)[:window]))
        if loss_tokens(example) > 0:
            examples.append(example)
    return examples


def alpaca_prompt(instruction: str, context: str | None) -> str:
    """Return Alpaca's prompt; `context` is the input column, empty or null where there is none."""
    if isinstance(context, str) and context:
        return ALPACA_WITH_INPUT.format(instruction=instruction, input=context)
    return ALPACA.format(instruction=instruction)


def loss_tokens(example: Example) -> int:
    """Return how many tokens of `example` are predicted: the first has nothing before it to be predicted from."""
    return int((example.labels[1:] != IGNORE).sum())
