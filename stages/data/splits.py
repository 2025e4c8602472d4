"""Remove repeated text, and split documents so that nothing of one split is in another."""

import random
import re
from dataclasses import replace

from stages.data.python_docs import Document, Entry

STRATUM = 20  # documents
MINIMUM_CHARACTERS = 500  # of a document: stubs and generated tables of a line or two are no text


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
