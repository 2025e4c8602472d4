"""Which criteria, allocations, updates and other keys go with which structure."""

from typing import NoReturn

from stages.prune import allocation, budget, criteria, update
from stages.prune.patterns import ALLOWED, n_of_m

UNITS = {"criterion": criteria.names(), "allocation": allocation.names(), "update": update.names()}
# Structures of units take all of UNITS; these have their own.
OWN = {
    "weight": {"criterion": criteria.names("weight"), "allocation": ["uniform"], "update": update.names("weight")},
    "layer": {"criterion": criteria.names("layer"), "allocation": ["global"], "update": ["none"]},
    "channel": {
        "criterion": ["activation_norm", "flap", "l1", "l2", "random", "similarity", "taylor", "wanda_sp"],
        "allocation": ["uniform"],
        "update": ["none"],
    },
}
# What takes a backward pass, or runs all that lies behind a module many times over.
WHOLE = {"structure": ["channel"], "criterion": ["taylor"], "allocation": ["fisher", "sensitivity", "search"]}
RATIO_TOLERANCE = 0.005  # 1:3 removes 0.667


def every(choice: str) -> list[str]:
    """Return the values of `choice` (criterion, update) that some structure takes."""
    return sorted({*UNITS[choice], *(name for own in OWN.values() for name in own[choice])})


def check_combination(params) -> None:
    """Raise ValueError, one line, unless the keys of section `prune` go together."""
    chosen = params.chosen
    structure = f"structure = {chosen.structure}"
    for choice, names in OWN.get(chosen.structure, UNITS).items():
        if getattr(chosen, choice) not in names:
            refuse(f"{choice} = {getattr(chosen, choice)}", structure, ", ".join(names))
    idle: dict[str, object] = {"budget": None, "layout": "free"} if chosen.structure in OWN else {}
    idle |= {"round_to": 1} if chosen.structure in ("weight", "layer") else {}
    idle |= {"pattern": None} if chosen.structure != "weight" else {}
    for key, rest in idle.items():
        if getattr(params, key) != rest:
            refuse(f"{key} = {getattr(params, key)}", structure, "null" if rest is None else str(rest))
    if chosen.structure == "weight":
        check_weight(params, chosen.pattern)
    if chosen.structure == "channel" and params.grouping == "prod":  # over all matrices of the model it leaves float64
        refuse("grouping = prod", structure, "sum, mean, max, first")
    if params.streaming:
        check_streaming(params)
    ranges = params.attention_layers, params.mlp_layers
    if chosen.structure == "layer" and None not in ranges and ranges[0] != ranges[1]:
        refuse(f"attention_layers = {ranges[0]} and mlp_layers = {ranges[1]}", structure, "one range for both")


def check_weight(params, pattern: str | None) -> None:
    """Raise ValueError unless pattern, ratio and steps go together in structure weight."""
    if pattern is None:
        refuse("pattern = null", f"method = {params.method} in structure = weight", ALLOWED)
    if params.iterative_steps != 1:
        refuse(f"iterative_steps = {params.iterative_steps}", "structure = weight", "1")
    sparse = n_of_m(pattern)
    if sparse and abs(params.ratio - 1 + sparse[0] / sparse[1]) > RATIO_TOLERANCE:
        refuse(f"ratio = {params.ratio:g}", f"pattern = {pattern}", f"{1 - sparse[0] / sparse[1]:.3g}")
    if sparse and params.ratio_of != "groups":
        refuse(f"ratio_of = {params.ratio_of}", f"pattern = {pattern}", "groups")


def check_streaming(params) -> None:
    """Raise ValueError for what needs the whole model at once."""
    for choice, names in WHOLE.items():
        if getattr(params.chosen, choice) in names:
            refuse("streaming = true", f"{choice} = {getattr(params.chosen, choice)}", "false")
    if params.budget and budget.UNITS[budget.parse(params.budget)[1]][1] == "latency":
        refuse("streaming = true", f"budget = {params.budget}", "false")


def refuse(found: str, beside: str, allowed: str) -> NoReturn:
    """Raise ValueError for what does not go together."""
    raise ValueError(f"{found} does not go with {beside}; allowed: {allowed}")
