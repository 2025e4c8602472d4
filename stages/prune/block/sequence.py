"""Prune the modules one after another, each in the model with the earlier ones already pruned."""

from collections.abc import Callable

import torch

from stages.common.progress import progress
from stages.models.paging import each_in_memory
from stages.models.parts import Parts
from stages.models.prunable import Prunable
from stages.models.surgery import keep_units
from stages.prune.activations import Activations
from stages.prune.block.task import Task
from stages.prune.block.update import Update, update
from stages.prune.criteria import ActivationCriterion, combined, criterion
from stages.prune.inputs import Inputs
from stages.prune.units import strongest

Visit = Callable[[int, Prunable, Inputs, torch.Tensor], None]


def visit_modules(
    task: Task, visit: Visit, then: Update, label: str, before: Callable[[Prunable, Inputs], None] | None = None
) -> Activations:
    """Call visit(i, module, inputs, scores) for every module, in the order in which the windows pass them.

    `inputs` are the statistics of the module's inputs with what `then` needs, `scores` one number per unit. A criterion
    of activations scores a module there, once `before` has changed it; any other scores all before the first. Returns
    the activations, which are at the last module.
    """
    by = criterion(task.params.chosen.criterion)
    scores = [] if isinstance(by, ActivationCriterion) else task.scores
    activations = Activations(task.model, task.windows, with_targets=then.needs == "targets")
    for i, module in enumerate(progress(task.modules, label)):
        inputs = activations.inputs(module)
        if before:
            before(module, inputs)
        if isinstance(by, ActivationCriterion):
            visit(i, module, inputs, combined(by.score_inputs(module, inputs), task.params))
        else:
            visit(i, module, inputs, scores[i])
    return activations


def cut_modules(task: Task, counts: list[int]) -> None:
    """Remove counts[i] units from module i of `task` for good, those of the lowest scores, and update the rest.

    A module that loses all of its units goes as a whole.
    """
    by, then = criterion(task.params.chosen.criterion), update(task.params.chosen.update)
    if then.needs == "nothing" and not isinstance(by, ActivationCriterion):  # nothing looks at the windows on their way
        scores = task.scores  # all of them, before the first module is cut
        for module, count, score in zip(each_in_memory(task.model, task.modules), counts, scores, strict=True):
            keep_or_skip(task, module, strongest(score, count))
        return

    def cut(i: int, module: Prunable, inputs: Inputs, score: torch.Tensor) -> None:
        keep = strongest(score, counts[i])
        if len(keep):
            then.update(module, keep, inputs)
        inputs.activations.cut(module.columns(keep))
        keep_or_skip(task, module, keep)

    then.finish(visit_modules(task, cut, then, "pruning", then.receive))


def keep_or_skip(task: Task, module: Prunable, keep: torch.Tensor) -> None:
    """Cut `module` down to the units `keep`, or take it out where there are none."""
    if len(keep):
        keep_units(module, keep)
    else:
        Parts(task.model).skip(module.layer, module.kind)
