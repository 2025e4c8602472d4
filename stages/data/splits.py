"""Remove duplicate text, and split documents so that the splits do not overlap."""

import random
import re
from collections.abc import Collection
from dataclasses import replace

from stages.common.errors import UserError
from stages.data.params import DataParams
from stages.data.python_docs import Document, Entry

STRATUM = 20  # documents
ENOUGH_DOCUMENTS = 2 * STRATUM  # to be split as they are
PART_CHARACTERS = 4000  # of a part, at most: about 1,000 tokens
MINIMUM_CHARACTERS = 500  # of a document: shorter ones are stubs and generated tables


def deduplicate(documents: list[Document]) -> list[Document]:
    """Return the documents without the lines that occurred before, in them or in an earlier one.

    A line is a whole paragraph of prose, a heading or an item of a list. Topics quote each other at length and
    docstrings are copied between modules. What becomes too short is dropped.
    """
    seen: set[str] = set()
    kept = (replace(each, entries=tuple(new_entries(each.entries, seen))) for each in documents)
    return [each for each in kept if len(each.text()) >= MINIMUM_CHARACTERS]


def new_entries(entries: tuple[Entry, ...], seen: set[str]) -> list[Entry]:
    """Return the entries with the lines that are not in `seen`, and add those to it."""
    result = []
    for entry in entries:
        lines = []
        for line in entry.text.splitlines():
            key = " ".join(line.split()).casefold()
            if key not in seen:
                lines.append(line)
            if key:
                seen.add(key)
        if text := re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip("\n"):
            result.append(replace(entry, text=text))
    return result


def split(documents: list[Document], shares: dict[str, float], seed: int) -> dict[str, list[Document]]:
    """Return the documents as splits: those of `shares` get that share of them, train gets the rest.

    Documents differ in length by a factor of a hundred: of every STRATUM of about the same length each split gets its
    share, so that it has its share of the text too.
    """
    by_length = sorted(documents, key=lambda document: (len(document.text()), document.name))
    generator = random.Random(seed)
    splits: dict[str, list[Document]] = {"train": [], **{name: [] for name in shares}}
    for start in range(0, len(by_length), STRATUM):
        stratum = by_length[start : start + STRATUM]
        end = start + len(stratum)
        generator.shuffle(stratum)
        for name, share in shares.items():
            due = round(share * end) - len(splits[name])
            splits[name] += stratum[:due]
            stratum = stratum[due:]
        splits["train"] += stratum
    return {name: generator.sample(part, len(part)) for name, part in splits.items()}


def split_texts(source: str, texts: list[str], params: DataParams, uncut: Collection[str] = ()) -> dict[str, list[str]]:
    """Return different documents as splits train, validation and test, each with its share.

    Where there are fewer than ENOUGH_DOCUMENTS, the long ones that are not among `uncut` are cut into parts first, so
    that a book or a row of many pages can be split: so many parts in all, of 500 to 4,000 characters each. Raises
    UserError, which begins with `source`, if a split gets no document.
    """
    texts = list(dict.fromkeys(texts))
    if len(texts) < ENOUGH_DOCUMENTS:
        size = sum(map(len, texts)) // ENOUGH_DOCUMENTS
        size = min(max(size, MINIMUM_CHARACTERS), PART_CHARACTERS)
        parts = ([text] if text in uncut else cut(text, size) for text in texts)
        texts = list(dict.fromkeys(part for each in parts for part in each))
    documents = [Document(str(number), (Entry("", "", text),)) for number, text in enumerate(texts)]
    shares = {"validation": params.validation_share, "test": params.test_share}
    splits = split(documents, shares, params.seed)
    for name, part in splits.items():
        if not part:
            key = f"data.{name}_share = {shares[name]}" if name in shares else "what the shares leave for training"
            raise UserError(
                f"{source} gives {len(texts)} different documents or parts of documents, and "
                f"{key} is none of them; expected more text, or another share"
            )
    return {name: [each.text() for each in part] for name, part in splits.items()}


def cut(text: str, size: int) -> list[str]:
    """Return the text in parts of at most `size` characters, cut at the last border of the coarsest kind before that.

    Borders are, from coarse to fine, between paragraphs, lines, sentences and words; a part is at least half as long as
    it may be, so a text without any of them is cut between characters. Blanks at a border are left out.
    """
    parts = []
    while len(text) > size:
        window = text[:size]
        ends = (window.rfind(border) + len(border) for border in ("\n\n", "\n", ". ", " ") if border in window)
        end = next((end for end in ends if 2 * end >= size), size)
        parts.append(text[:end].strip())
        text = text[end:].lstrip()
    return [part for part in [*parts, text.strip()] if part]
