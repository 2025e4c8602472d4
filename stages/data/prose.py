"""Extract prose from documentation: join wrapped lines, drop listings, find sentences."""

import re

FILLED = 50  # characters of a line that is likely to have been wrapped at its end
MARKER = re.compile(r"\s*(?:(?:[-*+]|\d+[.)])\s+)?")  # indentation and the bullet of a list's item
LISTING = re.compile(r"^\s*(>>>|\.\.\.|[|=@#+$]|[-*=~^]{2})|::=|\S\s{3,}\S")  # examples, code, tables, grammars
DOUBLE_SPACE = re.compile(r"(?<=[.!?:;,]) {2}(?=\S)")  # a typist's habit
SHORTEST = 200  # characters of a paragraph: shorter ones are captions, notes and headings
SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z\"'(])")


def prose(text: str) -> str:
    """Return `text` with each wrapped paragraph on one line, and without listings; indentation stays.

    A line goes on in the next one if it is filled and the next begins in the column where its own words begin.
    A listing begins with a line that looks like one and ends with its paragraph.
    """
    lines: list[str] = []
    column = None  # where a continuation of the last line would begin
    listing = False
    for line in map(str.rstrip, text.expandtabs().splitlines()):
        line = DOUBLE_SPACE.sub(" ", line)
        listing = bool(line) and (listing or LISTING.search(line) is not None)
        if listing:
            column = None
            continue
        words = len(line) - len(line.lstrip())
        marker = MARKER.match(line)
        begins = marker.end() if marker else 0
        if line and words == begins == column:
            hyphenated = lines[-1][-2:-1].isalpha() and lines[-1].endswith("-")
            lines[-1] += ("" if hyphenated else " ") + line.lstrip()
        else:
            lines.append(line)
        column = begins if len(line) >= FILLED else None
    return "\n".join(lines).strip("\n")


def is_paragraph(line: str) -> bool:
    """Return whether a line is a paragraph of English prose: long, nearly all letters, and with an end."""
    letters = sum(character.isascii() and (character.isalpha() or character == " ") for character in line)
    return len(line) >= SHORTEST and line[-1] in ".!?" and letters > 0.93 * len(line)


def sentences(text: str) -> list[str]:
    """Return the sentences of `prose` text: at least 8 words, mostly letters, in paragraphs without indentation."""
    found = []
    for line in text.splitlines():
        if line[:1].isspace():
            continue
        for sentence in SENTENCE_END.split(" ".join(line.split())):
            if len(sentence.split()) < 8 or sentence[-1] not in ".!?":
                continue
            letters = sum(character.isalpha() or character == " " for character in sentence)
            if letters > 0.85 * len(sentence):
                found.append(sentence)
    return found
