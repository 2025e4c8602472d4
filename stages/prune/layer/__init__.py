"""Structure layer: units are whole decoder layers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from stages.prune.choices import names
from stages.prune.structure import Structure, refuse

if TYPE_CHECKING:
    from stages.prune.params import PruneParams


def check(params: PruneParams) -> None:
    """Raise ValueError unless one range of layers may go."""
    attention, mlp = params.attention_layers, params.mlp_layers
    if attention is not None and mlp is not None and attention != mlp:
        found = f"attention_layers = {attention} and mlp_layers = {mlp}"
        refuse(found, "structure = layer", "one range for both")


LAYER = Structure(
    takes={"criterion": names(Path(__file__).parent / "criteria"), "allocation": ["global"], "update": ["none"]},
    idle={"budget": None, "layout": "free", "round_to": 1, "pattern": None},
    unstreamed={"criterion": ["taylor"]},
    check=check,
)
