"""What is called greedy is the most likely token, step by step, whatever a model's generation config asks for."""

import pytest
import torch
from helpers import FAMILIES, tiny_family, tiny_llama, tiny_tokenizer
from transformers import GenerationConfig

from stages.common.generation import greedy, write
from stages.models.checkpoint import load_model, load_tokenizer, save_checkpoint

TOKENS = [5, 9, 3]


@torch.no_grad()
def most_likely(model, tokens: list[int], count: int, ends: tuple[int, ...] = ()) -> list[int]:
    """Return `count` tokens, each the most likely one after all before it, up to an end token."""
    whole = list(tokens)
    for _ in range(count):
        whole.append(int(model(torch.tensor([whole]), use_cache=False).logits[0, -1].argmax()))
        if whole[-1] in ends:
            break
    return whole[len(tokens) :]


@pytest.mark.parametrize("family", FAMILIES)
def test_greedy_is_the_most_likely_token_of_every_family(family):
    """Among them sliding windows shorter than the text."""
    model, tokenizer = tiny_family(family), tiny_tokenizer()
    model.generation_config.eos_token_id = None
    expected = most_likely(model, TOKENS, 12)
    assert greedy(model, tokenizer, TOKENS, 12) == tokenizer.decode(expected, skip_special_tokens=True)


@pytest.mark.parametrize(
    "settings",
    [
        {"repetition_penalty": 9.0},
        {"no_repeat_ngram_size": 1},
        {"do_sample": True, "temperature": 5.0, "top_k": 3},
        {"num_beams": 3},
        {"min_new_tokens": 5},
        {"suppress_tokens": [7, 8, 9, 10, 11]},
        {"forced_eos_token_id": 4},
        {"max_length": 4},
        {"bad_words_ids": [[7], [8]]},
    ],
)
def test_nothing_of_a_generation_config_but_its_ends_counts(tmp_path, settings):
    model, tokenizer = tiny_llama(), tiny_tokenizer()
    model.generation_config = GenerationConfig(eos_token_id=0)
    save_checkpoint(model, tokenizer, tmp_path)
    GenerationConfig(eos_token_id=0, **settings).save_pretrained(tmp_path)
    loaded = load_model(tmp_path)
    own = loaded.generation_config
    expected = tokenizer.decode(most_likely(model, TOKENS, 12, (0,)), skip_special_tokens=True)
    assert greedy(loaded, load_tokenizer(tmp_path), TOKENS, 12) == expected
    assert loaded.generation_config is own


@pytest.mark.parametrize("place", [0, 2, 5])
def test_any_of_the_end_tokens_ends(place):
    model, tokenizer = tiny_llama(), tiny_tokenizer()
    model.generation_config.eos_token_id = None
    free = most_likely(model, TOKENS, 12)
    end = free[place]
    model.generation_config.eos_token_id = [63, end]
    kept = free[: free.index(end) + 1]
    assert greedy(model, tokenizer, TOKENS, 12) == tokenizer.decode(kept, skip_special_tokens=True)


def test_a_models_own_settings_count_where_they_are_asked_for():
    model, tokenizer = tiny_llama(), tiny_tokenizer()
    model.generation_config = GenerationConfig(eos_token_id=0, repetition_penalty=9.0)
    written = write(model, tokenizer, TOKENS, 8)
    assert written == tokenizer.decode(
        model.generate(torch.tensor([TOKENS]), max_new_tokens=8)[0, len(TOKENS) :], skip_special_tokens=True
    )
    assert written != greedy(model, tokenizer, TOKENS, 8)


@pytest.mark.parametrize(
    "settings",
    [
        {"num_beams": 3},
        {"num_beams": 2, "num_return_sequences": 2},
        {"do_sample": True, "num_return_sequences": 2},
        {"return_dict_in_generate": True, "output_scores": True},
        {"max_length": 2},
        {"use_cache": False},
    ],
)
def test_what_is_streamed_is_what_is_written_whatever_the_models_settings(settings, capsys):
    model, tokenizer = tiny_llama(), tiny_tokenizer()
    model.generation_config = GenerationConfig(eos_token_id=0, **settings)
    written = write(model, tokenizer, TOKENS, 8, stream=True)
    assert capsys.readouterr().out.split() == written.split() != []
