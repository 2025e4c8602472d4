"""Structure rank: units are the singular values of the matrices of attention and MLP, each then two thin matrices."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from stages.prune.choices import names
from stages.prune.structure import Structure, refuse

if TYPE_CHECKING:
    from stages.prune.params import PruneParams

HERE = Path(__file__).parent


def check(params: PruneParams) -> None:
    """Raise ValueError for more than one step: a matrix of low rank is not taken apart again."""
    if params.iterative_steps != 1:
        refuse(f"iterative_steps = {params.iterative_steps}", "structure = rank", "1")


RANK = Structure(
    takes={
        "criterion": names(HERE / "criteria"),
        "allocation": names(HERE / "allocation"),
        "update": names(HERE / "update"),
    },
    idle={"budget": None, "layout": "free", "round_to": 1, "pattern": None},
    unstreamed={},
    check=check,
)
