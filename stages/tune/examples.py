"""Training examples from text and instructions: tokens, and labels that mask the prompt."""

from typing import NamedTuple

import pandas as pd
import torch
from transformers import PreTrainedTokenizerBase

from stages.common.errors import UserError
from stages.common.text import Encoded, chat_text, encode, end_tokens, to_learn
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


def instruction_examples(
    rows: pd.DataFrame, tokenizer: PreTrainedTokenizerBase, window: int, template: str
) -> list[Example]:
    """Return one example per row of columns instruction, input, output, laid out by `template`: alpaca | chat.

    The prompt is masked; the output and one token that ends it are learnt. A sequence is cut after `window` tokens; one
    whose prompt leaves no room is left out.
    """
    lay_out = chat_sequences if template == "chat" else alpaca_sequences
    examples = []
    for encoded, prompt in lay_out(rows, tokenizer):
        labels = [
            token if start >= prompt else IGNORE for token, start in zip(encoded.tokens, encoded.starts, strict=True)
        ]
        example = Example(torch.tensor(encoded.tokens[:window]), torch.tensor(labels[:window]))
        if loss_tokens(example) > 0:
            examples.append(example)
    return examples


def alpaca_sequences(rows: pd.DataFrame, tokenizer: PreTrainedTokenizerBase) -> list[tuple[Encoded, int]]:
    """Return each row as Alpaca's prompt, the output and the end token, with the length of the prompt in characters."""
    prompts = [alpaca_prompt(row.instruction, row.input) for row in rows.itertuples()]
    # Prompt and output in one go, as in use the tokens across their border are what the model sees.
    texts = [prompt + output for prompt, output in zip(prompts, rows["output"], strict=True)]
    return list(zip(to_learn(tokenizer, texts), map(len, prompts), strict=True))


def chat_sequences(rows: pd.DataFrame, tokenizer: PreTrainedTokenizerBase) -> list[tuple[Encoded, int]]:
    """Return each row as a question and its answer in the chat template, with the length of the prompt in characters.

    What the template writes after the answer's end token, a line break say, is left out: a model stops before it.
    """
    lengths, texts = [], []
    for row in rows.itertuples():
        question = {"role": "user", "content": chat_question(row.instruction, row.input)}
        answer = {"role": "assistant", "content": row.output}
        prompt = chat_text(tokenizer, [question], answer_next=True)
        text = chat_text(tokenizer, [question, answer], answer_next=False)
        if not text.startswith(prompt):
            raise UserError(
                "tune.template = 'chat': the chat template does not put an answer after its own prompt for one; "
                "set it to alpaca"
            )
        lengths.append(len(prompt))
        texts.append(text.rstrip())
    end = end_tokens(tokenizer)
    sequences = []
    for encoded, length in zip(encode(tokenizer, texts), lengths, strict=True):
        ends = [
            place for place, (token, start) in enumerate(zip(*encoded, strict=True)) if token in end and start >= length
        ]
        kept = ends[-1] if ends else len(encoded.tokens)
        whole = Encoded(encoded.tokens[:kept] + end, encoded.starts[:kept] + [length] * len(end))
        sequences.append((whole, length))
    return sequences


def chat_question(instruction: str, context: str | None) -> str:
    """Return the user's question; `context` is the input column, which may be empty or null."""
    return f"{instruction}\n\n{context}" if isinstance(context, str) and context else instruction


def alpaca_prompt(instruction: str, context: str | None) -> str:
    """Return Alpaca's prompt; `context` is the input column, empty or null where there is none."""
    if isinstance(context, str) and context:
        return ALPACA_WITH_INPUT.format(instruction=instruction, input=context)
    return ALPACA.format(instruction=instruction)


def loss_tokens(example: Example) -> int:
    """Return how many tokens of `example` are predicted: the first has nothing before it to be predicted from."""
    return int((example.labels[1:] != IGNORE).sum())
