"""Explanations of methods from the documentation of scientific packages, in addition to that of Python.

They are the paragraphs of plain prose in the docstrings of scikit-learn, NetworkX and SciPy (BSD licences), which come
with the requirements: statistics, learning, graphs, numerical methods. No network.
"""

import re

from stages.data import python_docs
from stages.data.package_files import installed_folder
from stages.data.prose import is_paragraph

NAME = "science"  # in data/sources.json
PACKAGES = ("sklearn", "networkx", "scipy")
DISTRIBUTIONS = ("scikit-learn", "networkx", "scipy")
MARKUP = re.compile(r"[`$\\|^<>=_\[\]{}]")  # code, formulas and references


def documents() -> list[str]:
    """Return one document for each module with prose, package by package, a paragraph a line.

    A repeated paragraph counts once. Raises UserError if a package is not installed.
    """
    seen: set[str] = set()
    texts = []
    for package in PACKAGES:
        for module in python_docs.modules(installed_folder(NAME, package)):
            lines = dict.fromkeys(
                " ".join(line.split()) for entry in module.entries for line in entry.text.splitlines()
            )
            kept = [line for line in lines if line not in seen and is_plain(line)]
            seen.update(kept)
            texts.append("\n".join(kept))
    return [text for text in texts if text]


def is_plain(line: str) -> bool:
    """Return whether a line is a paragraph without markup, and no licence in capitals."""
    return is_paragraph(line) and not line.isupper() and not MARKUP.search(line)
