"""Structure weight: units are single weights, which become zero."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from stages.prune.choices import names
from stages.prune.structure import Structure, refuse
from stages.prune.weight.patterns import EXPECTED, n_of_m

if TYPE_CHECKING:
    from stages.prune.params import PruneParams

HERE = Path(__file__).parent
RATIO_TOLERANCE = 0.005  # 1:3 removes 0.667


def check(params: PruneParams) -> None:
    """Raise ValueError unless pattern, ratio and steps go together."""
    pattern = params.chosen.pattern
    if pattern is None:
        refuse("pattern = null", f"method = {params.method} in structure = weight", EXPECTED)
    if params.iterative_steps != 1:
        refuse(f"iterative_steps = {params.iterative_steps}", "structure = weight", "1")
    sparse = n_of_m(pattern)
    if sparse and abs(params.ratio - 1 + sparse[0] / sparse[1]) > RATIO_TOLERANCE:
        refuse(f"ratio = {params.ratio:g}", f"pattern = {pattern}", f"{1 - sparse[0] / sparse[1]:.3g}")
    if sparse and params.ratio_of != "groups":
        refuse(f"ratio_of = {params.ratio_of}", f"pattern = {pattern}", "groups")


WEIGHT = Structure(
    takes={"criterion": names(HERE / "criteria"), "allocation": ["uniform"], "update": names(HERE / "update")},
    idle={"budget": None, "layout": "free", "round_to": 1},
    unstreamed={},
    check=check,
)
