"""Perplexity set `abstracts`: lm-eval's README files on its benchmarks, often a paper's abstract. No network.

No stage trains or calibrates on them: they are a second domain, apart from the text that a model is tuned on.
"""

import re

from stages.data.package_files import installed_files
from stages.data.prose import is_paragraph

NAME = "abstracts"
DISTRIBUTIONS = ("lm-eval",)
FOLDER = "tasks"  # inside lm-eval's package
FENCE = re.compile(r"^\s*```.*?^\s*```", re.DOTALL | re.MULTILINE)  # citations and commands
LINK = re.compile(r"!?\[([^\]]*)\]\([^)]*\)")  # [text](address)
ADDRESS = re.compile(r"https?://\S+|\S+@\S+")
MARKS = re.compile(r"[*`]+|^>\s*|^(?:Abstract:)\s*|^\"|\"$")
STRUCTURE = ("#", "|", "-", "@", "<", "+", "1.", "* ")  # headings, tables, lists, citations, HTML


def documents() -> list[str]:
    """Return one document for each README file with prose, sorted by path; a repeated paragraph counts once.

    Raises UserError if lm-eval or its files are not installed.
    """
    seen: set[str] = set()
    texts = []
    for file in installed_files(NAME, "lm_eval", FOLDER, "*/README.md"):
        kept = [each for each in paragraphs(file.read_text(encoding="utf-8", errors="replace")) if each not in seen]
        seen.update(kept)
        texts.append("\n".join(kept))
    return [text for text in texts if text]


def paragraphs(markdown: str) -> list[str]:
    """Return the paragraphs of English prose in `markdown`, each on one line, without marks, links and addresses."""
    found = []
    for block in re.split(r"\n\s*\n", FENCE.sub("", markdown)):
        if any(line.lstrip().startswith(STRUCTURE) for line in block.splitlines()):
            continue
        text = " ".join(ADDRESS.sub("", LINK.sub(r"\1", block)).split())
        text = MARKS.sub("", MARKS.sub("", text)).strip()
        if is_paragraph(text):
            found.append(text)
    return found
