"""data.source = python-docs: the documentation every Python carries, and exam questions that lm-eval carries.

No network, no files beside the project.
"""

import hashlib
import platform
import sys

import pandas as pd

from stages.data import exams, python_docs
from stages.data.collected import Collected
from stages.data.instructions import alpaca_rows
from stages.data.params import DataParams
from stages.data.splits import deduplicate, split
from stages.data.task_files import multiple_choice
from stages.data.tasks import make_tasks


def collect(params: DataParams, few_shot: bool) -> Collected:
    """Return text, instructions and tasks; nothing of one split is in another.

    The tasks have no training split: few-shot examples are other questions of the one that is scored.

    Raises UserError if the held-out documents do not give `data.questions` for every task.
    """
    documents = deduplicate(python_docs.collect())
    splits = split(documents, {"validation": params.validation_share, "test": params.test_share}, params.seed)
    tasks = make_tasks(splits["test"], splits["train"] + splits["validation"], params.questions, params.seed)
    texts = {name: [document.text() for document in part] for name, part in splits.items()}
    instructions = alpaca_rows(splits["train"])
    digest = hashlib.sha256("\0".join(document.text() for document in documents).encode()).hexdigest()
    source = {"name": "python-docs", "revision": f"Python {platform.python_version()}", "sha256": digest}
    examples = exams.documents()
    return Collected(
        texts=texts,
        instructions=pd.DataFrame(instructions),
        perplexity={"pydocs": texts["test"], exams.NAME: examples},
        tasks={name: multiple_choice(name, rows) for name, rows in tasks.items()},
        sources=[source, exams.source(examples)],
        details=summary(texts, len(instructions), params.questions, digest),
        own_domain="pydocs",
    )


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
