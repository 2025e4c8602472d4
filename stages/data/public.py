"""data.source = hub | mirror: public datasets by name, such as the thesis's."""

import hashlib
import json

import pandas as pd

from stages.common.errors import UserError
from stages.data import evaluation_data
from stages.data.collected import Collected
from stages.data.datasets import named
from stages.data.library import Library, alpaca, texts_of
from stages.data.params import DataParams
from stages.data.rows import ALPACA
from stages.data.splits import split_texts

BLOCK_CHARACTERS = 4000  # rows can be single sentences, so that many characters of neighbouring rows form a document


def collect(params: DataParams, few_shot: int | None) -> Collected:
    """Return all that the params name, read from the hub or the mirror; `few_shot`: of the tasks' examples.

    What a mirror lacks is named in one line: an error, or with `data.missing: skip` a warning, and the part is left
    out. Raises UserError also where that leaves no calibration text, no task or no set, and for columns that are not as
    expected.
    """
    library = Library(params)
    others = evaluation_data.collect(params, few_shot, library)
    instructions = library.get(params.instructions, named(params.instructions), "train")
    corpus = library.get(params.calibration, named(params.calibration), "train")
    library.report()
    evaluation_data.check_left(params, others)
    if corpus is None:
        raise UserError(f"data.calibration = {params.calibration!r} cannot be left out; expected a text the mirror has")

    documents = blocks(texts_of(params.calibration, corpus), params.characters)
    texts = split_texts(f"data.calibration = {params.calibration!r}", documents, params)
    collected = Collected(
        texts=texts,
        calibration=texts["train"],
        instructions=pd.DataFrame(columns=ALPACA)
        if instructions is None
        else alpaca(params.instructions, instructions),
        perplexity=others.perplexity,
        tasks=others.tasks,
        groups=others.groups,
        sources=[*library.records, *others.sources],
        details={},
        own_domain=own_domain(params.calibration, list(others.perplexity)),
    )
    collected.details.update(summary(collected))
    return collected


def own_domain(corpus: str, sets: list[str]) -> str | None:
    """Return which of `sets` comes from the dataset of `corpus`, the one of the same name first; None if none does."""
    related = [name for name in sets if named(name).repo == named(corpus).repo]
    return corpus if corpus in related else next(iter(related), None)


def blocks(rows: list[str], characters: int) -> list[str]:
    """Return documents of neighbouring rows, up to `characters` in all."""
    documents, block, left = [], "", characters
    for row in rows:
        block += row.rstrip() + "\n"
        if len(block) >= min(BLOCK_CHARACTERS, left):
            documents.append(block[:left].strip())
            left -= len(block)
            block = ""
        if left <= 0:
            break
    return [text for text in [*documents, block.strip()] if text]


def summary(collected: Collected) -> dict[str, int | float]:
    """Return the details: sizes, and a hash that changes when any file that was read does."""
    counts: dict[str, int | float] = {f"{name}_documents": len(part) for name, part in collected.texts.items()}
    counts |= {f"{name}_characters": sum(map(len, part)) for name, part in collected.texts.items()}
    counts |= {f"{name}_documents": len(part) for name, part in collected.perplexity.items()}
    counts |= {f"{name}_questions": task.splits[task.scored].num_rows for name, task in collected.tasks.items()}
    digest = hashlib.sha256(json.dumps(collected.sources).encode()).hexdigest()
    return counts | {"instructions": len(collected.instructions), "content_hash": int(digest[:12], 16)}
