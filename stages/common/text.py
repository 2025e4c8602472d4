"""Encode text: to continue it, to train on it, or through a chat template.

A tokenizer may put special tokens around what it encodes: a BOS before it, and some an EOS after it. Which of them
are needed depends on the purpose, so stages use these functions instead of the tokenizer.
"""

from copy import deepcopy
from typing import Any, NamedTuple

from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerBase

from stages.common.errors import UserError


class Encoded(NamedTuple):
    """Tokens, and for each the character of the text at which it starts; -1 for one that stands for no character."""

    tokens: list[int]
    starts: list[int]


def to_continue(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Return the tokens of a text that a model continues: after a BOS where the tokenizer adds one, without an EOS."""
    return prefix(tokenizer) + plain_tokens(tokenizer, text)


def plain_tokens(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Return the tokens of a text without the special tokens that the tokenizer adds around it."""
    tokens: Any = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    return tokens


def to_learn(tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> list[Encoded]:
    """Return texts that a model learns to write and to end: a BOS as the tokenizer adds it, exactly one EOS."""
    before, end = prefix(tokenizer), end_tokens(tokenizer)
    return [
        Encoded([*before, *each.tokens, *end], [-1] * len(before) + each.starts + [len(text)] * len(end))
        for text, each in zip(texts, encode(tokenizer, texts), strict=True)
    ]


def encode(tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> list[Encoded]:
    """Return the tokens of texts that already contain all special tokens, such as those from a chat template."""
    if not texts:  # an empty list would confuse the tokenizer
        return []
    encoded = tokenizer(texts, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    return [
        Encoded(tokens, [start for start, _ in offsets])
        for tokens, offsets in zip(encoded["input_ids"], encoded["offset_mapping"], strict=True)
    ]


def chat_text(tokenizer: PreTrainedTokenizerBase, messages: list[dict[str, str]], answer_next: bool) -> str:
    """Return a conversation in the tokenizer's chat template, with the beginning of an answer if that is next.

    Raises UserError where the template refuses it.
    """
    try:
        return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=answer_next))
    except Exception as error:  # a template can raise anything
        raise UserError(f"the tokenizer's chat template fails: {' '.join(str(error).split())}") from None


def chat_tokens(tokenizer: PreTrainedTokenizerBase, messages: list[dict[str, str]]) -> list[int]:
    """Return the tokens of a conversation whose next message the model writes; the template holds the BOS, if any."""
    return plain_tokens(tokenizer, chat_text(tokenizer, messages, answer_next=True))


def prefix(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Return the special tokens that the tokenizer puts before a text."""
    return around(tokenizer)[0]


def around(tokenizer: PreTrainedTokenizerBase) -> tuple[list[int], list[int]]:
    """Return the special tokens that the tokenizer puts before and after a text."""
    plain, whole = plain_tokens(tokenizer, "a"), tokenizer("a")["input_ids"]
    places = range(len(whole) - len(plain) + 1)
    start = next((place for place in places if whole[place : place + len(plain)] == plain), 0)
    return whole[:start], whole[start + len(plain) :]


def without_ending(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """Return a tokenizer that puts nothing after a text: a copy where `tokenizer` does, else `tokenizer` itself."""
    before, after = around(tokenizer)
    if not after:
        return tokenizer
    changed = deepcopy(tokenizer)
    names = tokenizer.convert_ids_to_tokens(before)
    changed.backend_tokenizer.post_processor = TemplateProcessing(
        single=[*names, "$A"], pair=[*names, "$A", "$B:1"], special_tokens=list(zip(names, before, strict=True))
    )
    return changed


def end_tokens(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Return the EOS that ends a training example; empty if the tokenizer has none."""
    return [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
