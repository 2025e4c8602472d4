"""Reading what the report stage writes, and changing what it reads."""

import json
from pathlib import Path


def read(folder: Path, name: str) -> dict[str, float]:
    return json.loads((folder / name).read_text())


def edit(path: Path, **changes) -> None:
    """Set the keys of a JSON file; None takes one away."""
    content = {key: value for key, value in (json.loads(path.read_text()) | changes).items() if value is not None}
    path.write_text(json.dumps(content))


def section(page: str, title: str) -> str:
    return page.split(f"## {title}\n")[1].split("\n## ")[0]


def table_rows(text: str) -> list[list[str]]:
    """Return the cells of every line of the Markdown tables in `text`."""
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]
