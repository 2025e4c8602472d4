"""The structures, by the value of `prune.structure`, and whether the keys of section `prune` go with the chosen one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stages.prune.block import BLOCK, budget
from stages.prune.channel import CHANNEL
from stages.prune.expert import EXPERT
from stages.prune.layer import LAYER
from stages.prune.rank import RANK
from stages.prune.structure import Structure, refuse
from stages.prune.weight import WEIGHT

if TYPE_CHECKING:
    from stages.prune.params import PruneParams

STRUCTURES: dict[str, Structure] = {
    "block": BLOCK,
    "channel": CHANNEL,
    "expert": EXPERT,
    "layer": LAYER,
    "rank": RANK,
    "weight": WEIGHT,
}


def every(choice: str) -> list[str]:
    """Return the values of `choice` (criterion, allocation, update) that some structure takes."""
    return sorted({name for structure in STRUCTURES.values() for name in structure.takes[choice]})


def check_combination(params: PruneParams) -> None:
    """Raise ValueError, one line, unless the keys of section `prune` go together."""
    chosen = params.chosen
    structure, beside = STRUCTURES[chosen.structure], f"structure = {chosen.structure}"
    for choice, names in structure.takes.items():
        if getattr(chosen, choice) not in names:
            refuse(f"{choice} = {getattr(chosen, choice)}", beside, f"one of: {', '.join(names)}")
    for key, rest in structure.idle.items():
        if getattr(params, key) != rest:
            refuse(f"{key} = {getattr(params, key)}", beside, "null" if rest is None else str(rest))
    structure.check(params)
    if params.streaming:
        for choice, names in structure.unstreamed.items():
            if getattr(chosen, choice) in names:
                refuse("streaming = true", f"{choice} = {getattr(chosen, choice)}", "false")
        if params.budget and budget.measure(params.budget) == "latency":
            refuse("streaming = true", f"budget = {params.budget}", "false")
