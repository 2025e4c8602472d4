"""Structure expert: units are whole experts of a mixture, with their rows of the router."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from stages.prune.choices import names
from stages.prune.structure import Structure, refuse

if TYPE_CHECKING:
    from stages.prune.params import PruneParams


def check(params: PruneParams) -> None:
    """Raise ValueError unless there are layers whose experts may go."""
    if params.mlp_layers is None:
        refuse("mlp_layers = null", "structure = expert", "auto, or a half-open range of layers")


HERE = Path(__file__).parent
EXPERT = Structure(
    takes={
        "criterion": names(HERE / "criteria"),
        "allocation": names(HERE / "allocation"),
        "update": ["none"],
    },
    idle={"budget": None, "layout": "free", "round_to": 1, "pattern": None, "grouping": "sum"},
    unstreamed={"criterion": ["taylor"]},
    check=check,
)
