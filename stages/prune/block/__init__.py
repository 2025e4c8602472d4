"""Structure block: units are MLP channels and key/value heads, with the query heads that read them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from stages.prune.choices import names
from stages.prune.structure import Structure, refuse

if TYPE_CHECKING:
    from stages.prune.params import PruneParams

HERE = Path(__file__).parent
REMOVE_WHOLE = ("sublayers", "two_stage")  # the allocations that remove whole attentions or MLPs


def check(params: PruneParams) -> None:
    """Raise ValueError unless an allocation that removes whole attentions or MLPs has one budget for all, once."""
    if params.chosen.allocation not in REMOVE_WHOLE:
        return
    expected = {"iterative_steps": 1, "layout": "free"} | ({} if params.joint else {"ratio_of": "parameters"})
    for key, value in expected.items():
        if getattr(params, key) != value:
            refuse(f"{key} = {getattr(params, key)}", f"allocation = {params.chosen.allocation}", str(value))


BLOCK = Structure(
    takes={
        "criterion": sorted([*names(HERE.parent / "criteria"), *names(HERE / "criteria")]),
        "allocation": names(HERE / "allocation"),
        "update": names(HERE / "update"),
    },
    idle={"pattern": None},
    unstreamed={"criterion": ["taylor"], "allocation": ["fisher", "sensitivity", "search", *REMOVE_WHOLE]},
    check=check,
)
