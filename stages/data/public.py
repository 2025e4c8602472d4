"""data.source = hub | mirror: the thesis's public datasets."""

import hashlib
import json
from typing import Any

import pandas as pd
import pyarrow as pa

from stages.common.errors import UserError
from stages.data.collected import Collected
from stages.data.datasets import Dataset, named
from stages.data.params import DataParams
from stages.data.python_docs import Document, Entry
from stages.data.readers import Reader, hub_reader, mirror_reader
from stages.data.splits import split
from stages.data.stock_tasks import stock_task

ALPACA = ["instruction", "input", "output"]
TEXT_COLUMNS = ("text", "sentence")
BLOCK_CHARACTERS = 4000  # rows can be single sentences: so many characters of neighbouring rows make a document


def collect(params: DataParams, few_shot: bool) -> Collected:
    """Return all that the params name, read from the hub or the mirror; with `few_shot` training splits of tasks too.

    What a mirror lacks is named in one line: an error, or with `data.missing: skip` a warning, and the part is left
    out. Raises UserError also where that leaves no calibration text, no task or no set, and for columns that are not as
    expected.
    """
    library = Library(mirror_reader(str(params.mirror)) if params.source == "mirror" else hub_reader(params.revisions))
    tasks = {name: stock_task(name, library.get, few_shot) for name in params.tasks}
    sets = {name: library.get(name, named(name), str(named(name).held_out)) for name in params.perplexity}
    instructions = library.get(params.instructions, named(params.instructions), "train")
    corpus = library.get(params.calibration, named(params.calibration), "train")
    library.report(params.missing)
    for key, wanted, found in (("tasks", params.tasks, tasks), ("perplexity", params.perplexity, sets)):
        if all(part is None for part in found.values()):
            raise UserError(f"nothing is left of data.{key} = {wanted}; allowed: at least one that the mirror has")
    if corpus is None:
        raise UserError(f"data.calibration = {params.calibration!r} cannot be left out; allowed: a text the mirror has")

    texts = corpus_splits(texts_of(params.calibration, corpus), params)
    collected = Collected(
        texts=texts,
        instructions=pd.DataFrame(columns=ALPACA)
        if instructions is None
        else alpaca(params.instructions, instructions),
        perplexity={name: texts_of(name, table) for name, table in sets.items() if table is not None},
        tasks={name: task for name, task in tasks.items() if task is not None},
        sources=library.records,
        details={},
        own_domain=own_domain(params.calibration, [name for name, table in sets.items() if table is not None]),
    )
    collected.details.update(summary(collected))
    return collected


class Library:
    """A reader that remembers what it read, and what it did not find."""

    def __init__(self, reader: Reader):
        self.reader = reader
        self.records: list[dict[str, Any]] = []
        self.missing: list[str] = []

    def get(self, name: str, dataset: Dataset, split: str) -> pa.Table | None:
        """Return a split for the part `name`, or None."""
        found = self.reader(dataset, split)
        if found is None:
            self.missing.append(f"{name} ({dataset.places(split)[0]})")
            return None
        self.records.append({"name": name, **found.record, "rows": found.table.num_rows})
        return found.table

    def report(self, missing: str) -> None:
        """Name what was not found: UserError, or a line where `missing` is skip."""
        if not self.missing:
            return
        line = f"not in the mirror: {', '.join(self.missing)}"
        if missing == "refuse":
            raise UserError(f"{line}; add it, name other data, or set data.missing: skip")
        print(f"data: {line}; left out", flush=True)


def own_domain(corpus: str, sets: list[str]) -> str | None:
    """Return which of `sets` comes from the dataset of `corpus`, the one of the same name first; None if none does."""
    related = [name for name in sets if named(name).repo == named(corpus).repo]
    return corpus if corpus in related else next(iter(related), None)


def texts_of(name: str, table: pa.Table) -> list[str]:
    """Return the rows as text, by the columns there are; UserError if there are none for it."""
    for column in TEXT_COLUMNS:
        if column in table.column_names:
            return table[column].to_pylist()
    return ["\n".join(filter(None, row)) for row in alpaca(name, table).itertuples(index=False)]


def alpaca(name: str, table: pa.Table) -> pd.DataFrame:
    """Return the columns instruction, input, output; UserError if one is missing."""
    lacking = [column for column in ALPACA if column not in table.column_names]
    if lacking:
        raise UserError(
            f"data: {name} has no column {', '.join(lacking)}; its columns: {', '.join(table.column_names)}"
        )
    return table.select(ALPACA).to_pandas().fillna("")


def corpus_splits(rows: list[str], params: DataParams) -> dict[str, list[str]]:
    """Return documents of neighbouring rows, up to `data.characters`, split into train, validation and test."""
    documents, block, left = [], "", params.characters
    for row in rows:
        block += row.rstrip() + "\n"
        if len(block) >= min(BLOCK_CHARACTERS, left):
            documents.append(block[:left].strip())
            left -= len(block)
            block = ""
        if left <= 0:
            break
    entries = [Document(str(i), (Entry("", "", text),)) for i, text in enumerate([*documents, block.strip()]) if text]
    shares = {"validation": params.validation_share, "test": params.test_share}
    return {name: [each.text() for each in part] for name, part in split(entries, shares, params.seed).items()}


def summary(collected: Collected) -> dict[str, int | float]:
    """Return the details: sizes, and a hash that changes when any file that was read does."""
    counts: dict[str, int | float] = {f"{name}_documents": len(part) for name, part in collected.texts.items()}
    counts |= {f"{name}_characters": sum(map(len, part)) for name, part in collected.texts.items()}
    counts |= {f"{name}_documents": len(part) for name, part in collected.perplexity.items()}
    counts |= {f"{name}_questions": task.splits[task.scored].num_rows for name, task in collected.tasks.items()}
    digest = hashlib.sha256(json.dumps(collected.sources).encode()).hexdigest()
    return counts | {"instructions": len(collected.instructions), "content_hash": int(digest[:12], 16)}
