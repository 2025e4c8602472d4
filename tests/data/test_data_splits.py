import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.data.python_docs import Document, Entry
from stages.data.splits import MINIMUM_CHARACTERS, deduplicate, split

FILLER = "word " * (MINIMUM_CHARACTERS // 5)


def document(name: str, *texts: str) -> Document:
    return Document(name, tuple(Entry("function", f"f{number}()", text) for number, text in enumerate(texts)))


def texts(documents: list[Document]) -> list[list[str]]:
    return [[entry.text for entry in document.entries] for document in documents]


def test_a_line_stays_where_it_is_first_however_it_is_spaced():
    documents = [
        document("a", f"{FILLER}a\n\nReturn the size.\n\nNote", "return  the SIZE."),
        document("b", "Return the size.\nAnd more.", f"{FILLER}b\n\n  Note\n\nlast"),
    ]
    assert texts(deduplicate(documents)) == [
        [f"{FILLER}a\n\nReturn the size.\n\nNote"],
        ["And more.", f"{FILLER}b\n\nlast"],
    ]


def test_what_is_left_of_a_copy_is_no_document():
    assert [each.name for each in deduplicate([document("a", FILLER), document("b", FILLER, "Its own.")])] == ["a"]


def library(sizes: list[int]) -> list[Document]:
    return [document(f"module {number:03}", "x" * size) for number, size in enumerate(sizes)]


@given(st.lists(st.integers(1, 10**5), min_size=1, max_size=150), st.floats(0.01, 0.5), st.floats(0.01, 0.49))
def test_every_document_is_in_one_split_and_each_split_has_its_share(sizes, first, second):
    documents = library(sizes)
    parts = split(documents, {"validation": first, "test": second}, seed=1)
    assert sorted(each.name for part in parts.values() for each in part) == [each.name for each in documents]
    assert len(parts["validation"]) == pytest.approx(first * len(sizes), abs=0.5)
    # The last few documents may be too few for both.
    assert len(parts["test"]) == pytest.approx(second * len(sizes), abs=1)


def test_every_split_has_long_and_short_documents():
    sizes = [2**power for _ in range(40) for power in range(5)]
    parts = split(library(sizes), {"test": 0.25}, seed=3)
    assert sorted(len(each.entries[0].text) for each in parts["test"]) == sorted(sizes[:50])


def test_the_seed_alone_decides():
    documents = library(list(range(1, 101)))
    shares = {"validation": 0.1, "test": 0.2}
    first, same, other = (
        split(each, shares, seed) for each, seed in ((documents, 5), (documents[::-1], 5), (documents, 6))
    )
    assert first == same
    assert {each.name for each in first["test"]} != {each.name for each in other["test"]}
