"""Structure channel: units are the channels of the hidden size, in the whole model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from stages.prune.choices import names
from stages.prune.structure import Structure, refuse

if TYPE_CHECKING:
    from stages.prune.params import PruneParams


def check(params: PruneParams) -> None:
    """Raise ValueError for products over all matrices of the model, which leave float64's range."""
    if params.grouping == "prod":
        refuse("grouping = prod", "structure = channel", "one of: sum, mean, max, first")


HERE = Path(__file__).parent
DIRECTIONS = names(HERE / "criteria")  # criteria that rotate the stream
CHANNEL = Structure(
    takes={
        "criterion": sorted([*names(HERE.parent / "criteria"), *DIRECTIONS]),
        "allocation": ["uniform"],
        "update": names(HERE / "update"),
    },
    idle={"budget": None, "layout": "free", "pattern": None},
    unstreamed={"structure": ["channel"]},
    check=check,
)
