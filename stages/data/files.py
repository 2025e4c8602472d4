"""data.source = files: the user's own text, in data.path."""

import hashlib
from pathlib import Path

import pandas as pd

from stages.data import evaluation_data
from stages.data.collected import Collected
from stages.data.folder import text_files
from stages.data.formats import Own, documents
from stages.data.library import Library
from stages.data.params import DataParams
from stages.data.rows import ALPACA
from stages.data.splits import split_texts

OWN = "own"  # the held-out documents as a perplexity set


def collect(params: DataParams, few_shot: int | None) -> Collected:
    """Return the text of data.path, its instructions, and the tasks and sets that the params name.

    Nothing of one split is in another: equal documents count once, and instructions are those of the training split.
    Raises UserError for what cannot be read, and for text of too few documents to be split.
    """
    path = str(params.path)
    files = text_files(path)
    owned = first(files, params.characters)
    instructions = {each.text.strip(): each.instruction for each in owned if each.instruction}
    texts = split_texts(f"data.path = {path!r}", [each.text.strip() for each in owned], params, instructions)
    rows = [instructions[text] for text in texts["train"] if text in instructions]
    library = Library(params)
    others = evaluation_data.collect(params, few_shot, library)
    library.report()
    evaluation_data.check_left(params, others)
    digest = hashlib.sha256("\0".join(each.text for each in owned).encode()).hexdigest()
    source = {"name": OWN, "revision": "files", "sha256": digest, "files": len(files)}
    return Collected(
        texts=texts,
        calibration=texts["train"],
        instructions=pd.DataFrame(rows, columns=ALPACA),
        perplexity={OWN: texts["test"], **others.perplexity},
        tasks=others.tasks,
        groups=others.groups,
        sources=[source, *others.sources, *library.records],
        details=summary(texts, len(rows), digest),
        own_domain=OWN,
    )


def first(files: list[Path], characters: int) -> list[Own]:
    """Return the documents of the files in their order, up to data.characters; a line says where they end."""
    owned: list[Own] = []
    left = characters
    for file in files:
        for document in documents(file, left):
            owned.append(document)
            left -= len(document.text)
            if left <= 0:
                print(f"data: data.characters = {characters} is reached in {file}; the rest is ignored", flush=True)
                return owned
    return owned


def summary(texts: dict[str, list[str]], instructions: int, digest: str) -> dict[str, int | float]:
    """Return the details: sizes, and a hash of all text."""
    counts: dict[str, int | float] = {f"{name}_documents": len(part) for name, part in texts.items()}
    counts |= {f"{name}_characters": sum(map(len, part)) for name, part in texts.items()}
    return counts | {"instructions": instructions, "content_hash": int(digest[:12], 16)}
