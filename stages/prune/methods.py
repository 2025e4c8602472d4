"""Methods: names for the four choices that make a pruning method. `prune.method` picks one, its other keys override."""

from typing import NamedTuple


class Method(NamedTuple):
    """What a unit is, what it is worth, how much each layer gives, and what the kept weights do."""

    structure: str
    criterion: str
    allocation: str
    update: str


METHODS = {
    "random": Method("block", "random", "uniform", "none"),
    "l1": Method("block", "l1", "uniform", "none"),
    "l2": Method("block", "l2", "uniform", "none"),
    "taylor": Method("block", "taylor", "uniform", "none"),
    "obs": Method("block", "obs", "uniform", "refit"),
}
