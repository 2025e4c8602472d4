"""The pages on methods and the docstrings: every choice is explained and has its paper, every preset a measured row."""

import re
from importlib import import_module

import pytest
from helpers import ROOT

from stages.prune.block import BLOCK
from stages.prune.channel import CHANNEL
from stages.prune.expert import EXPERT
from stages.prune.layer import LAYER
from stages.prune.methods import METHODS
from stages.prune.rank import RANK
from stages.prune.structures import STRUCTURES
from stages.prune.weight import WEIGHT

PAGE = (ROOT / "docs/methods.md").read_text(encoding="utf-8")
MEASURED = (ROOT / "docs/methods-measured.md").read_text(encoding="utf-8")
SECTIONS = {text.split(":")[0].split("\n")[0]: text for text in PAGE.split("\n## ")}
EXPLAINED = {
    "Criteria": BLOCK.takes["criterion"],
    "Allocations": BLOCK.takes["allocation"],
    "Updates": BLOCK.takes["update"],
    "Single weights": [*WEIGHT.takes["criterion"], *WEIGHT.takes["update"], "row", "matrix", "n:m"],
    "Whole layers": LAYER.takes["criterion"],
    "The hidden size": [*CHANNEL.takes["criterion"], *CHANNEL.takes["update"]],
    "Low rank": [*RANK.takes["criterion"], *RANK.takes["allocation"], *RANK.takes["update"]],
    "Experts": [*EXPERT.takes["criterion"], *EXPERT.takes["allocation"]],
}
FOLDERS = (
    "criteria",
    *("block.criteria", "block.allocation", "block.update"),
    *("weight.criteria", "weight.update", "layer.criteria", "expert.criteria", "channel.criteria", "channel.update"),
    *("rank.criteria", "rank.allocation", "rank.update"),
)
OF_NO_PAPER = {
    "block.allocation.channels_first",
    "block.allocation.uniform",
    "block.update.none",
    "channel.update.none",
    "expert.criteria.l2",
    "layer.criteria.first",
    "rank.update.none",
    "weight.update.none",
}


@pytest.mark.parametrize("section", EXPLAINED)
def test_every_choice_is_explained(section):
    missing = [name for name in EXPLAINED[section] if f"**{name}**" not in SECTIONS[section]]
    assert not missing


def test_every_structure_has_a_section():
    titles = re.findall(r"structure `(\w+)`", PAGE)
    assert set(titles) == set(STRUCTURES)


def test_every_preset_has_a_measured_row():
    measured = {name for row in re.findall(r"^\| ([\w, ]+) \|.*\d", MEASURED, re.MULTILINE) for name in row.split(", ")}
    # No mixture of experts comes as a package, so none is measured.
    assert measured >= {name for name, method in METHODS.items() if method.structure != "expert"}


def test_every_docstring_names_its_paper():
    files = [
        file for folder in FOLDERS for file in (ROOT / "stages/prune" / folder.replace(".", "/")).glob("[a-z]*.py")
    ]
    modules = {".".join(file.relative_to(ROOT / "stages/prune").with_suffix("").parts) for file in files}
    cited = {name for name in modules if re.search(r"(et al\.|& \w+) \d{4}", documentation(name))}
    assert modules - cited == OF_NO_PAPER


def documentation(name: str) -> str:
    """Return the docstring of a module of the prune stage as one line."""
    return " ".join(str(import_module(f"stages.prune.{name}").__doc__).split())
