"""The declaration of a structure, in the `__init__.py` of its folder. No torch: params are checked without it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from stages.prune.params import PruneParams


@dataclass(frozen=True)
class Structure:
    """The choices that a structure supports."""

    takes: Mapping[str, list[str]]  # criterion, allocation, update: the values allowed
    idle: Mapping[str, object]  # keys that it has no use for, and the value that they must have
    # What takes a backward pass, or runs all that lies behind a module many times over, has the whole model in memory.
    unstreamed: Mapping[str, list[str]]
    check: Callable[[PruneParams], None] = lambda params: (
        None
    )  # raises ValueError for other keys that do not go with it


def refuse(found: str, beside: str, expected: str) -> NoReturn:
    """Raise ValueError, one line, for what does not go together."""
    raise ValueError(f"{found} does not go with {beside}; expected {expected}")
