"""docs/methods.md and the docstrings: every choice is explained, has its paper, and every preset a measured row."""

import re
from importlib import import_module

import pytest
from helpers import ROOT

from stages.prune import allocation, criteria, structures, update
from stages.prune.combinations import OWN
from stages.prune.methods import METHODS

PAGE = (ROOT / "docs/methods.md").read_text(encoding="utf-8")
SECTIONS = {text.split(":")[0].split("\n")[0]: text for text in PAGE.split("\n## ")}
EXPLAINED = {
    "Criteria": criteria.names(),
    "Allocations": allocation.names(),
    "Updates": update.names(),
    "Single weights": [*criteria.names("weight"), *update.names("weight"), "row", "matrix", "n:m"],
    "Whole layers": criteria.names("layer"),
    "The hidden size": OWN["channel"]["criterion"],
}
FOLDERS = {
    "criteria": criteria.names(),
    "criteria.weight": criteria.names("weight"),
    "criteria.layer": criteria.names("layer"),
    "allocation": ["global_" if name == "global" else name for name in allocation.names()],
    "update": update.names(),
    "update.weight": update.names("weight"),
}
OF_NO_PAPER = {
    "criteria.layer.first",
    "allocation.channels_first",
    "allocation.uniform",
    "update.none",
    "update.weight.none",
}


@pytest.mark.parametrize("section", EXPLAINED)
def test_every_choice_is_explained(section):
    missing = [name for name in EXPLAINED[section] if f"**{name}**" not in SECTIONS[section]]
    assert not missing


def test_every_structure_has_a_section():
    titles = re.findall(r"structure `(\w+)`", PAGE)
    assert set(titles) == set(structures.names())


def test_every_preset_has_a_measured_row():
    tables = SECTIONS["Presets, measured"]
    measured = {name for row in re.findall(r"^\| ([\w, ]+) \|.*\d", tables, re.MULTILINE) for name in row.split(", ")}
    assert measured >= set(METHODS)


def test_every_docstring_names_its_paper():
    modules = {f"{folder}.{name}" for folder, names in FOLDERS.items() for name in names}
    cited = {name for name in modules if re.search(r"(et al\.|& \w+) \d{4}", documentation(name))}
    assert modules - cited == OF_NO_PAPER


def documentation(name: str) -> str:
    """Return the docstring of a module of the prune stage as one line."""
    return " ".join(str(import_module(f"stages.prune.{name}").__doc__).split())
