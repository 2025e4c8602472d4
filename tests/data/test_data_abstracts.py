"""Perplexity set `abstracts`: the prose of lm-eval's README files."""

import pytest

from stages.common.errors import UserError
from stages.data import abstracts, prose

TEXTS = abstracts.documents()


def test_the_set_is_large_and_of_prose():
    """16,000 tokens are asked for; a token of English has fewer than six characters by any tokenizer in use."""
    whole = "\n".join(TEXTS)
    assert len(whole) > 6 * 16_000 and len(TEXTS) > 100
    paragraphs = whole.splitlines()
    assert len(set(paragraphs)) == len(paragraphs)
    assert not any(mark in whole for mark in ("```", "://", "**", "](", "@", "  ", "|"))
    assert all(len(each) >= prose.SHORTEST and each[-1] in ".!?" for each in paragraphs)


def test_headings_lists_tables_code_and_other_languages_are_no_prose():
    sentence = "This is a sentence of the abstract about a benchmark. " * 5
    markdown = "\n\n".join(
        [
            f"# {sentence}", f"- {sentence}", f"These are:\n* {sentence}", f"| {sentence} |",
            f"```\n{sentence}\n```", f"@article{{ {sentence}",
            f"> **Abstract:** `{sentence}`", f"See [the paper](https://example.org/a) of it.\n{sentence}",
            "\u043f\u0440\u0438\u0432\u0435\u0442 " * 50 + ".", "Too short.",
        ]
    )  # fmt: skip
    assert abstracts.paragraphs(markdown) == [sentence.strip(), f"See the paper of it. {sentence.strip()}"]


def test_without_lm_eval_it_is_one_line(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match="abstracts: lm_eval/tasks is not installed; run `make setup`"):
        abstracts.documents()
