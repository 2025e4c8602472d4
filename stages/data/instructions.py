"""Instruction data in Alpaca's columns, from docstrings: a signature in, its description out."""

from stages.data.python_docs import Document

INSTRUCTIONS = {
    "module": "Describe what this Python module is for.",
    "class": "Describe what this Python class is for.",
    "function": "Describe what this Python function does.",
}


def alpaca_rows(documents: list[Document]) -> list[dict[str, str]]:
    """Return one row of instruction, input, output per docstring; the output is its first paragraph."""
    return [
        {"instruction": INSTRUCTIONS[entry.kind], "input": entry.signature, "output": entry.text.split("\n\n")[0]}
        for document in documents
        for entry in document.entries
        if entry.kind
    ]
