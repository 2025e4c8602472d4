"""Structures: what a unit is. One file each; its name is the value of `prune.structure`.

A structure is a module with `prune(model, windows, params) -> (pruned model, metrics)`.
"""

import pkgutil
from importlib import import_module
from types import ModuleType


def names() -> list[str]:
    """Return the structures there are: the files of this folder."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def load(name: str) -> ModuleType:
    """Return structure `name`."""
    return import_module(f"{__name__}.{name}")
