"""Cut the modules one after another, each with the model as pruned so far."""

import torch

from stages.common.paging import each_in_memory
from stages.common.progress import progress
from stages.prune import criteria, update
from stages.prune.activations import Activations
from stages.prune.selection import Task
from stages.prune.surgery import keep_units


def cut_modules(task: Task, counts: list[int]) -> None:
    """Remove counts[i] units from module i of `task` for good, those of the lowest scores, and update the rest."""
    criterion, then = task.params.chosen.criterion, update.load(task.params.chosen.update)
    afresh = criteria.reads_activations(criterion)
    if not afresh and not then.READS:  # nothing looks at the windows on their way
        scores = task.scores  # all of them, before the first module is cut
        for module, count, score in zip(each_in_memory(task.model, task.modules), counts, scores, strict=True):
            keep_units(module, strongest(score, count))
        return
    scores = [] if afresh else task.scores
    activations = Activations(task.model, task.windows, with_targets=then.READS == "targets")
    cuts = list(zip(task.modules, counts, strict=True))
    for i, (module, count) in enumerate(progress(cuts, "pruning")):
        inputs = activations.inputs(module)
        if hasattr(then, "receive"):
            then.receive(module, inputs)
        score = criteria.score_module(criterion, module, inputs, task.params) if afresh else scores[i]
        keep = strongest(score, count)
        then.update(module, keep, inputs)
        activations.cut(module.columns(keep))
        keep_units(module, keep)
    if hasattr(then, "finish"):
        then.finish(activations)


def strongest(score: torch.Tensor, count: int) -> torch.Tensor:
    """Return all units but the `count` of the lowest scores, in ascending order; of equal ones the first go."""
    return score.argsort(stable=True)[count:].sort().values
