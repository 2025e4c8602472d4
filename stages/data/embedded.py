"""data.source = installed or python-docs: text in every installation. No network, no files.

Both use the documentation in every Python installation. With `installed`, pruning calibrates on, and recovery trains
on, exam questions, country profiles and explanations of scientific methods as well, which come with the requirements.
"""

import hashlib
import itertools
import platform
import sys

import pandas as pd

from stages.data import countries, evaluation_data, exams, package_files, python_docs, science
from stages.data.collected import Collected
from stages.data.library import Library
from stages.data.params import DataParams
from stages.data.splits import deduplicate, split

OWN = "pydocs"  # the held-out documents as a perplexity set
OTHERS = (exams, countries, science)  # what `installed` adds for calibration and recovery; no part of it is held out


def collect(params: DataParams, few_shot: int | None) -> Collected:
    """Return text, instructions, and the tasks and sets that the params name; nothing of one split is in another.

    Raises UserError if the held-out documents do not give `data.questions` for every task.
    """
    documents = deduplicate(python_docs.collect())
    splits = split(documents, {"validation": params.validation_share, "test": params.test_share}, params.seed)
    library = Library(params)
    others = evaluation_data.collect(params, few_shot, library, splits)
    library.report()
    evaluation_data.check_left(params, others)
    texts = {name: [document.text() for document in part] for name, part in splits.items()}
    added = {part: part.documents() for part in OTHERS} if params.source == "installed" else {}
    instructions = python_docs.alpaca_rows(splits["train"])
    digest = hashlib.sha256("\0".join(document.text() for document in documents).encode()).hexdigest()
    learnt = [package_files.source(part.NAME, part.DISTRIBUTIONS, found) for part, found in added.items()]
    source = {"name": "python-docs", "revision": f"Python {platform.python_version()}", "sha256": digest}
    return Collected(
        texts=texts,
        calibration=balanced(texts["train"], *added.values()),
        instructions=pd.DataFrame(instructions),
        perplexity={OWN: texts["test"], **others.perplexity},
        tasks=others.tasks,
        groups=others.groups,
        sources=[source, *learnt, *others.sources, *library.records],
        details=summary(texts, len(instructions), params.questions, digest),
        own_domain=OWN,
    )


def balanced(documentation: list[str], *others: list[str]) -> list[str]:
    """Return all texts, the others again and again until each is as long: calibration reads a small part of them."""
    size = sum(map(len, documentation))
    repeated = (texts * max(1, round(size / sum(map(len, texts)))) for texts in others)
    return [*documentation, *itertools.chain.from_iterable(repeated)]


def summary(texts: dict[str, list[str]], instructions: int, questions: int, digest: str) -> dict[str, int | float]:
    """Return the details: sizes, the Python version, and a hash of all text that changes when any of it does."""
    counts: dict[str, int | float] = {f"{name}_documents": len(part) for name, part in texts.items()}
    counts |= {f"{name}_characters": sum(map(len, part)) for name, part in texts.items()}
    version = dict(zip(("python_major", "python_minor", "python_micro"), sys.version_info[:3], strict=True))
    return counts | {
        "instructions": instructions,
        "questions_per_task": questions,
        "content_hash": int(digest[:12], 16),
        **version,
    }
