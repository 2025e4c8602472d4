import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from stages.base.tokenizer import END_OF_TEXT, train_tokenizer

TEXTS = ["Return the number of items in the list.", "Return the size of the file, or None if there is none."] * 4
TOKENIZER = train_tokenizer(TEXTS, 300)


def test_the_vocabulary_is_as_large_as_asked_and_all_bytes_are_in_it():
    assert len(TOKENIZER) == 300
    assert len(train_tokenizer(TEXTS, 257)) == 257
    assert len(TOKENIZER("Return the number")["input_ids"]) < len("Return the number")


@given(st.text())
def test_any_text_comes_back_as_it_was(text):
    tokens = TOKENIZER(text)["input_ids"]
    assert END_OF_TEXT in text or TOKENIZER.eos_token_id not in tokens
    assert TOKENIZER.decode(tokens) == text


def test_one_token_ends_begins_and_pads():
    assert TOKENIZER.eos_token_id == TOKENIZER.bos_token_id == TOKENIZER.pad_token_id == 0
    assert TOKENIZER.decode([0]) == END_OF_TEXT


@pytest.mark.parametrize("text", ["", "Return  the\n\nsize é"])
def test_a_saved_tokenizer_is_the_same(tmp_path, text):
    TOKENIZER.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert loaded(text)["input_ids"] == TOKENIZER(text)["input_ids"]
    assert loaded.decode(loaded(text)["input_ids"]) == text
    assert loaded.special_tokens_map == TOKENIZER.special_tokens_map


def test_training_again_gives_the_same_bytes(tmp_path):
    for name in ("first", "second"):
        train_tokenizer(TEXTS, 300).save_pretrained(tmp_path / name)
    for file in (tmp_path / "first").iterdir():
        assert file.read_bytes() == (tmp_path / "second" / file.name).read_bytes()
