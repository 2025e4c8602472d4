"""Special tokens stand where the use of the tokens asks for them, whatever the tokenizer adds by itself."""

import pytest
from helpers import chat_tokenizer, tiny_tokenizer, wrapped

from stages.common.text import chat_tokens, prefix, to_continue, to_learn

BOS, EOS = 0, 2


def letters(text: str) -> list[int]:
    return chat_tokenizer()(text, add_special_tokens=False)["input_ids"]


@pytest.mark.parametrize("single", ["$A", "<s> $A", "$A <|im_end|>", "<s> $A <|im_end|>", "<s> <s> $A <|im_end|>"])
@pytest.mark.parametrize("text", ["", "a", "aa b", "<|im_end|>", "ü"])
def test_only_what_comes_before_stays_before_a_continuation(single, text):
    tokenizer = wrapped(chat_tokenizer(), single)
    before = [BOS] * single.count("<s>")
    assert prefix(tokenizer) == before
    assert to_continue(tokenizer, text) == before + letters(text)


@pytest.mark.parametrize("single", ["$A", "<s> $A", "$A <|im_end|>", "<s> $A <|im_end|>"])
def test_what_is_learnt_ends_once(single):
    tokenizer = wrapped(chat_tokenizer(), single)
    before = [BOS] * single.count("<s>")
    first, second = to_learn(tokenizer, ["ab", "ü"])
    assert first.tokens == [*before, *letters("ab"), EOS]
    assert first.starts == [*[-1] * len(before), 0, 1, 2]
    assert second.tokens == [*before, *letters("ü"), EOS]
    assert second.starts == [*[-1] * len(before), 0, 0, 1]
    assert to_learn(tokenizer, []) == []


def test_a_tokenizer_without_an_end_of_text_has_none_to_learn():
    tokenizer = tiny_tokenizer()
    tokenizer.eos_token = None
    assert to_learn(tokenizer, ["ab"])[0].tokens == tokenizer("ab")["input_ids"]


def test_a_chat_template_has_the_only_beginning():
    tokens = chat_tokens(chat_tokenizer(), [{"role": "user", "content": "hi"}])
    text = "<s>system\nBe brief<|im_end|>\n<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
    assert tokens == letters(text)
    assert tokens.count(BOS) == 1
