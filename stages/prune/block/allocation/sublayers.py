"""Sublayers: whole attentions and MLPs, heads and channels in one knapsack, by the losses that `fisher` predicts.

Each attention and MLP has one more level: it goes, with its norm and biases, and what it adds to the stream becomes
zero. Puzzle (Bercovich et al. 2024) chooses among such replacements of each attention and MLP by integer programming.
"""

from stages.models.parts import Parts
from stages.prune.block.allocation.fisher import Fisher
from stages.prune.block.allocation.sensitivity import knapsack, summed, topped_up
from stages.prune.block.task import Task
from stages.prune.block.whole import present_attentions, whole_costs, with_gone


class Sublayers(Fisher):
    def tried(self, task: Task) -> dict[int, list[int]]:
        """Return by module the numbers of its units to try to remove: the levels, and all where it may go."""
        return add_whole(task, super().tried(task))

    def counts(self, task: Task) -> list[int]:
        """Choose the levels of least summed loss; what the whole modules leave of the budget is met exactly."""
        counts = best_levels(task, self.losses(task))
        gone = [i for i, module in enumerate(task.modules) if counts[i] == module.units]
        return with_gone(task, gone, lambda rest, places: topped_up(rest, [counts[i] for i in places]))


def add_whole(task: Task, tried: dict[int, list[int]]) -> dict[int, list[int]]:
    """Return `tried` with all units added for the modules that can be skipped; experts cannot one by one."""
    skipped = Parts(task.model).family.skipped_modules
    whole = [i for i, module in enumerate(task.modules) if module.kind in skipped and module.mixture is None]
    return tried | {i: [*tried.get(i, [0]), task.modules[i].units] for i in whole}


def best_levels(task: Task, losses: list[dict[int, float]]) -> list[int]:
    """Return the levels of least summed loss where one attention stays and whole modules take no more than has to go.

    The knapsack overshoots by up to a level, and only channels and heads can be given back. Where whole modules
    overshoot by more than half a unit, or all attentions go, the one of the largest loss stays, and the knapsack is
    solved again.
    """
    losses = [dict(table) for table in losses]
    whole = [i for i, module in enumerate(task.modules) if module.units in losses[i]]
    groups = [bundle.members for bundle in task.bundles]
    groups += [[i] for i in whole if all(i not in members for members in groups)]  # of a single unit
    most = task.excess + min((bundle.price for bundle in task.bundles), default=0.0) / 2
    while True:
        tables = [summed([losses[i] for i in members]) for members in groups]
        costs = [
            {count: sum(task.costs.saved(i, count) for i in members) for count in table}
            for members, table in zip(groups, tables, strict=True)
        ]
        counts = [0] * len(task.modules)
        for members, count in zip(groups, knapsack(tables, costs, task.excess), strict=True):
            for i in members:
                counts[i] = count
        gone = [i for i in whole if counts[i] == task.modules[i].units]
        attentions = [i for i in gone if task.modules[i].kind == "attention"]
        if attentions and len(attentions) == present_attentions(task.model):
            drop(task, losses, attentions)
        elif sum(whole_costs(task)[i] for i in gone) > most:
            drop(task, losses, gone)
        else:
            return counts


def drop(task: Task, losses: list[dict[int, float]], places: list[int]) -> None:
    """Let the module of the largest loss among `places` stay: it can no longer go as a whole."""
    i = max(places, key=lambda each: losses[each][task.modules[each].units])
    del losses[i][task.modules[i].units]
