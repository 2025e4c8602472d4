from hypothesis import given
from hypothesis import strategies as st

from stages.data.prose import FILLED, prose, sentences

LONG = "this line of the text is as long as the lines that are wrapped"  # longer than FILLED


def test_a_wrapped_paragraph_becomes_one_line():
    assert len(LONG) > FILLED
    assert prose(f"{LONG}\nand goes on\nhere.\n\n  {LONG}\n  there.") == f"{LONG} and goes on\nhere.\n\n  {LONG} there."


def test_a_line_that_begins_elsewhere_is_not_joined():
    for text in (f"{LONG}\n  indented", f"  {LONG}\nflush", f"{LONG}\n- an item", f"- {LONG}\nnot the item's"):
        assert prose(text) == text


def test_an_item_goes_on_where_its_words_begin():
    assert prose(f"* {LONG}\n  goes on\n1. {LONG}\n   too") == f"* {LONG} goes on\n1. {LONG} too"


def test_a_word_that_was_broken_at_its_hyphen_is_whole_again():
    assert prose(f"{LONG} comma-\nseparated") == f"{LONG} comma-separated"
    assert prose(f"{LONG} --\nthat is") == f"{LONG} -- that is"


def test_a_listing_is_left_out_up_to_the_end_of_its_paragraph():
    for first in (">>> f(1)", "   if_stmt ::= 'if' test", "name     meaning", "=======", "| a | b |", "# a comment"):
        assert prose(f"Before.\n\nAn example:\n{first}\n1\n\nAfter.") == "Before.\n\nAn example:\n\nAfter."


def test_two_spaces_after_a_full_stop_become_one():
    assert prose("One.  Two;  three") == "One. Two; three"


@given(st.lists(st.text("abcdefgh", min_size=1, max_size=12), min_size=1, max_size=80), st.integers(20, 90))
def test_no_word_of_prose_is_lost_or_changed(words, width):
    lines = [""]
    for word in words:
        if len(lines[-1]) + len(word) > width:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    assert prose("\n".join(lines)).split() == words


def test_sentences_are_whole_and_mostly_words():
    first = "The quick brown fox jumps over the lazy dog."
    second = "Does it jump over the very same dog again?"
    assert sentences(f"{first} {second} Too short. {first[:-1]}") == [first, second]
    assert sentences(f"  {first}\n{second}") == [second]
    assert sentences("It sets x[1] = y[2] * (3 + 4) / 5 - z[6] ** 7 + 8.") == []
