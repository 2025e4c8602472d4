"""The architectures that can be pruned: one file each, named as `model_type` in config.json."""

import pkgutil
from importlib import import_module

from stages.models.architecture import Architecture

PRUNED = "pruned_"  # before the model type of a model whose layers differ

FAMILIES: dict[str, Architecture] = {
    module.name: import_module(f"{__name__}.{module.name}").FAMILY for module in pkgutil.iter_modules(__path__)
}
