"""Updates: what the kept weights do to make up for the removed ones. One file each; its name is `prune.update`.

An update is a module with `update(module, keep, inputs)`, which changes the module's output matrix (o_proj, down_proj)
in place while all its units are still there; those not in `keep` are cut afterwards. `inputs` are the statistics of
that matrix's inputs in the model as pruned so far (inputs.Inputs). `READS` says what of them it looks at: ""
nothing, "inputs", or "targets" too: what the matrix must put out for the dense model's residual stream. An
update that adds parameters has `prepare(model)`, which makes room for them. One that changes a module before its units
are scored has `receive(module, inputs)`, and one that changes what comes behind the last layer `finish(activations)`.

Structure weight has updates of its own, in the folder `weight`.
"""

import pkgutil
from importlib import import_module
from types import ModuleType


def names(folder: str = "") -> list[str]:
    """Return the updates there are: the files of this folder, or those that `folder` in it has for a structure."""
    return sorted(module.name for module in pkgutil.iter_modules([f"{__path__[0]}/{folder}"]) if not module.ispkg)


def prepare(name: str, model) -> None:
    """Let update `name` make room in the model, if it needs any, before units are counted."""
    if hasattr(load(name), "prepare"):
        load(name).prepare(model)


def load(name: str) -> ModuleType:
    """Return update `name`, or `folder.name`."""
    return import_module(f"{__name__}.{name}")
