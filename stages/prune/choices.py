"""Load the values of a key of section `prune` by file name: criterion flap is the class in criteria/flap.py."""

import pkgutil
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TypeVar

Choice = TypeVar("Choice")


def names(folder: Path) -> list[str]:
    """Return the choices in `folder` (`global_` for the keyword global), without importing them and torch."""
    return sorted(module.name.rstrip("_") for module in pkgutil.iter_modules([str(folder)]))


def load(kind: type[Choice], name: str, *packages: str) -> Choice:
    """Return an instance of the class of `kind` in the file `name` of the first of `packages` that has it."""
    files = [f"{package}.{'global_' if name == 'global' else name}" for package in packages]
    module = import_module(next(file for file in files if find_spec(file)))
    classes = [each for each in vars(module).values() if isinstance(each, type) and each.__module__ == module.__name__]
    (found,) = (each for each in classes if issubclass(each, kind))
    return found()
