"""python -m thesis: audit the thesis's tables and compare them with ours by arithmetic, in reports/thesis.md."""

from pathlib import Path

from stages.common.outputs import staged
from stages.common.stage import run
from thesis.page import thesis_report


def main() -> None:
    """Write the page."""
    with staged(Path("reports/thesis.md")) as file:
        file.write_text(thesis_report(), encoding="utf-8")


if __name__ == "__main__":
    run("thesis", main)
