"""Folders of tokenizers: whichever files one consists of, it loads as it should, or the line names the file."""

import io
import json
import shutil
from pathlib import Path

import pytest
import sentencepiece
from helpers import tiny_llama, tiny_tokenizer

from stages.common.errors import UserError
from stages.models.checkpoint import has_tokenizer, load_tokenizer, save_checkpoint

TEXTS = ["the cat sat on the mat", " a dog ran", "in the park, hello"]


@pytest.fixture
def folder(tmp_path) -> Path:
    save_checkpoint(tiny_llama(), tiny_tokenizer(), tmp_path / "model")
    return tmp_path / "model"


def without(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).unlink()
    return folder


@pytest.fixture(scope="module")
def sentencepiece_model() -> bytes:
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS * 30), model_writer=model, vocab_size=60, model_type="bpe", minloglevel=2
    )
    return model.getvalue()


def test_tokenizer_json_is_enough(folder):
    loaded = load_tokenizer(without(folder, "tokenizer_config.json"))
    assert loaded("abc 0")["input_ids"] == tiny_tokenizer()("abc 0")["input_ids"]


@pytest.mark.parametrize("settings", [None, {"tokenizer_class": "LlamaTokenizer"}])
def test_a_sentencepiece_model_is_enough(folder, settings, sentencepiece_model, tmp_path):
    without(folder, "tokenizer.json", "tokenizer_config.json")
    (folder / "tokenizer.model").write_bytes(sentencepiece_model)
    if settings:
        (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    assert has_tokenizer(folder)
    expected = sentencepiece.SentencePieceProcessor(model_proto=sentencepiece_model)
    loaded = load_tokenizer(folder)
    loaded.save_pretrained(tmp_path / "saved")
    for each in (loaded, load_tokenizer(tmp_path / "saved")):
        for text in ("the cat", "hello, dog"):
            assert each(text, add_special_tokens=False)["input_ids"] == expected.encode(text)


def test_a_file_that_is_no_sentencepiece_model_is_named(folder):
    without(folder, "tokenizer.json", "tokenizer_config.json")
    (folder / "tokenizer.model").write_bytes(b"no model of this kind")
    with pytest.raises(UserError, match=r"model: cannot load a tokenizer from tokenizer\.model: ") as error:
        load_tokenizer(folder)
    assert "\n" not in str(error.value)


def test_a_folder_without_a_tokenizer_says_what_one_is(folder, tmp_path):
    assert not has_tokenizer(without(folder, "tokenizer.json"))
    with pytest.raises(UserError, match=r"has no tokenizer: expected one of the files tokenizer.json, tokenizer.model"):
        load_tokenizer(folder)
    shutil.rmtree(folder)
    with pytest.raises(UserError, match="has no tokenizer"):
        load_tokenizer(folder)
