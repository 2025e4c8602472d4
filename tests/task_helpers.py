"""Params and tasks of structure block over all layers of a tiny model."""

from helpers import prune_params

from stages.models.parts import Parts
from stages.models.prunable import block_modules
from stages.prune.block.costs import costs_of
from stages.prune.block.task import Task
from stages.prune.params import PruneParams


def params_of_all(layers: int, **changes) -> PruneParams:
    """Return params that prune all of so many layers."""
    return prune_params(**{"attention_layers": [0, layers], "mlp_layers": [0, layers], **changes})


def task_by(params: PruneParams, model, windows) -> Task:
    """Return the task of an allocation that prunes all layers of `model` by `params`."""
    layers = range(len(Parts(model).layers))
    modules = block_modules(model, layers, layers)
    costs = costs_of(params, model, modules, model.num_parameters())
    return Task(model, windows, params, modules, modules, params.ratio, costs, costs.total - costs.limit)
