"""Allocation: how much each layer gives. One file each; its name is the value of `prune.allocation`.

An allocation is a module with `keys(task)`, which returns for every module of the task (selection.Task) one ascending
float64 key per unit: the k-th belongs to the k-th unit that the module would give. Units go in the order of their keys,
smallest first, until the ratio is met. `POOLED` says whether the layers share one budget under `ratio_of: groups`, or
each module has its own.
"""

import pkgutil
from importlib import import_module
from types import ModuleType


def names() -> list[str]:
    """Return the allocations there are: the files of this folder (`global_` for the keyword global)."""
    return sorted(module.name.rstrip("_") for module in pkgutil.iter_modules(__path__))


def load(name: str) -> ModuleType:
    """Return allocation `name`."""
    return import_module(f"{__name__}.{'global_' if name == 'global' else name}")
