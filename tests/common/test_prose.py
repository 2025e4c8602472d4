"""Words that make messages, reports and docs hard to read stay out of them."""

import ast
import re

import pytest
from helpers import ROOT

DROPPED = {
    r"\btold\b": "reported, known or measured",
    r"\bbehind\b": "after",
    r"\bwholly\b": "complete",
    r"\b(?:it|them|that) (?:has|have) not\b|\bhas (?:it|them) not\b": "is missing",
    r"\bas \w+ has it\b": "as in",
    r"\banew\b": "again",
    r"\bwhereof\b|\bthereof\b": "of it",
    r"\ballowed: |\bexpected: ": "expected X, or expected one of: X, Y",
    r"\bis no (?:file|folder|model|checkpoint|config|task|linear layer)\b|\bno regular file\b": "is not a",
    r"\bso many\b": "that many",
    r"\bmakes? up for\b|\bmade up for\b": "compensate for",
    r"\bstands? in for\b": "replaces",
    r"\btakes? the place\b": "replace",
    r"\bby the clock\b": "wall time",
}
PAGES = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")
PACKAGES = ("stages", "analysis", "studies", "thesis", "chat")


def strings(path):
    """Yield the line and text of every string in a source file that is no docstring."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            yield node.lineno, node.value


def found_in(texts):
    """Return what of `texts`, (place, text), holds a dropped word."""
    return [
        f"{place}: {match[0]!r}, write {instead}"
        for place, text in texts
        for pattern, instead in DROPPED.items()
        if (match := re.search(pattern, text))
    ]


@pytest.mark.parametrize("package", PACKAGES)
def test_messages_and_reports_use_standard_words(package):
    files = sorted((ROOT / package).rglob("*.py"))
    assert files
    texts = [(f"{file.relative_to(ROOT)}:{line}", text) for file in files for line, text in strings(file)]
    assert found_in(texts) == []


def test_pages_use_standard_words():
    pages = [ROOT / name for name in PAGES] + sorted(ROOT.glob("docs/*.md"))
    lines = [
        (f"{page.name}:{number}", line)
        for page in pages
        for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1)
    ]
    assert found_in(lines) == []


def test_the_index_of_pages_lists_every_page():
    index = (ROOT / "docs/README.md").read_text(encoding="utf-8")
    assert {page.name for page in ROOT.glob("docs/*.md")} - {"README.md"} <= set(
        re.findall(r"\]\(([\w-]+\.md)\)", index)
    )


@pytest.mark.parametrize("page", [*PAGES, *sorted(str(page.relative_to(ROOT)) for page in ROOT.glob("docs/*.md"))])
def test_links_and_paths_of_a_page_exist(page):
    file = ROOT / page
    text = file.read_text(encoding="utf-8")
    links = [link.split("#")[0] for link in re.findall(r"\]\((?!http|#)([^)]+)\)", text)]
    paths = re.findall(r"`((?:stages|studies|analysis|benchmarks|tests)/[\w/]+\.(?:py|yaml))`", text)
    assert [link for link in links if not (file.parent / link).exists()] == []
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_a_dropped_word_is_found():
    assert found_in([("a:1", "it can be told")]) == ["a:1: 'told', write reported, known or measured"]
    assert found_in([("a:1", "the old one")]) == []
