"""Python's documentation, which every installation has: `pydoc_data.topics` and the docstrings of the standard library.

Docstrings are read with `ast` from the sources: nothing is imported or run, so the text depends on the sources alone.
"""

import ast
import pydoc_data.topics
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from stages.data.prose import prose

STANDARD_LIBRARY = Path(sysconfig.get_path("stdlib"))
# Not documentation, or not the standard library.
SKIPPED_FOLDERS = {"test", "tests", "idle_test", "site-packages", "dist-packages", "lib-dynload"}
INSTRUCTIONS = {
    "module": "Describe what this Python module is for.",
    "class": "Describe what this Python class is for.",
    "function": "Describe what this Python function does.",
}


@dataclass(frozen=True)
class Entry:
    """One docstring and what it describes; a topic's kind and signature are empty."""

    kind: str  # module | class | function | ""
    signature: str
    text: str


@dataclass(frozen=True)
class Document:
    """A module's docstrings in the order of its source, or one topic. A document is never split."""

    name: str
    entries: tuple[Entry, ...]

    def text(self) -> str:
        """Return the entries, each under its signature, with blank lines between them."""
        return "\n\n".join(f"{each.signature}\n{each.text}" if each.signature else each.text for each in self.entries)


def collect(root: Path = STANDARD_LIBRARY) -> list[Document]:
    """Return the topics and a document for every module under `root` that has docstrings, sorted by name."""
    topics = pydoc_data.topics.topics
    documents = [
        Document(f"topic {name}", (Entry("", "", text),)) for name, raw in topics.items() if (text := prose(raw))
    ]
    return sorted([*documents, *modules(root)], key=lambda document: document.name)


def modules(root: Path) -> list[Document]:
    """Return a document for every module under `root` that has docstrings, sorted by name."""
    documents = []
    for path in root.rglob("*.py"):
        relative = path.relative_to(root)
        if not SKIPPED_FOLDERS.intersection(relative.parts):
            name = module_name(relative)
            documents.append(Document(f"module {name}", tuple(docstrings(path, name))))
    return sorted((each for each in documents if each.entries), key=lambda document: document.name)


def module_name(path: Path) -> str:
    """Return `a.b` for a/b.py and for a/b/__init__.py."""
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def docstrings(path: Path, module: str) -> Iterator[Entry]:
    """Yield an entry for every docstring with prose in a source file; none for a file that is not valid Python."""
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):
        return
    if text := prose(ast.get_docstring(tree) or ""):
        yield Entry("module", module, text)
    yield from members(tree, "")


def members(parent: ast.AST, prefix: str) -> Iterator[Entry]:
    """Yield the entries of the classes and functions inside `parent`, whose qualified names begin with `prefix`."""
    for node in ast.iter_child_nodes(parent):
        if not isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            if not isinstance(node, ast.expr):  # most of a tree, and holds no definitions
                yield from members(node, prefix)
            continue
        name = prefix + node.name
        if text := prose(ast.get_docstring(node) or ""):
            kind, inside = ("class", node.bases) if isinstance(node, ast.ClassDef) else ("function", [node.args])
            yield Entry(kind, f"{name}({', '.join(map(ast.unparse, inside))})", text)
        yield from members(node, f"{name}.")


def alpaca_rows(documents: list[Document]) -> list[dict[str, str]]:
    """Return one row of instruction, input, output per docstring; the output is its first paragraph."""
    return [
        {"instruction": INSTRUCTIONS[entry.kind], "input": entry.signature, "output": entry.text.split("\n\n")[0]}
        for document in documents
        for entry in document.entries
        if entry.kind
    ]
