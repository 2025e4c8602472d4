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


CHANNEL = Structure(
    takes={
        "criterion": names(Path(__file__).parent.parent / "criteria"),
        "allocation": ["uniform"],
        "update": ["none"],
    },
    idle={"budget": None, "layout": "free", "pattern": None},
    unstreamed={"structure": ["channel"]},
    check=check,
)
