"""Attentions and MLPs that an allocation removes as a whole, and what the others then have to give."""

from collections.abc import Callable

from transformers import PreTrainedModel

from stages.models.parts import Parts
from stages.prune.block.task import Task


def whole_costs(task: Task) -> list[float]:
    """Return what each module costs as a whole."""
    return [task.costs.saved(i, module.units) for i, module in enumerate(task.modules)]


def present_attentions(model: PreTrainedModel) -> int:
    """Return how many layers have an attention; a model keeps one at least."""
    parts = Parts(model)
    return sum(not parts.attention(layer).skipped for layer in parts.layers)


def with_gone(task: Task, gone: list[int], fill_up: Callable[[Task, list[int]], list[int]]) -> list[int]:
    """Return the counts where the modules `gone` give all of their units.

    `fill_up` is given the task of removing the rest from the other modules, and their places in `task`. It returns
    their counts.
    """
    others = [i for i in range(len(task.modules)) if i not in gone]
    rest = task.of(others, task.excess - sum(whole_costs(task)[i] for i in gone))
    given = dict(zip(others, fill_up(rest, others), strict=True))
    return [given.get(i, module.units) for i, module in enumerate(task.modules)]
