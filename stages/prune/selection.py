"""How many units each module gives: an allocation's keys give the order, the ratio says how far to go."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from transformers import PreTrainedModel

from stages.common.errors import UserError
from stages.prune import allocation
from stages.prune.criteria import score_units
from stages.prune.units import Module


@dataclass(frozen=True)
class Task:
    """What one pruning step has to do: bring the removed share of `original` to `ratio`, from `modules` as they are."""

    model: PreTrainedModel
    windows: torch.Tensor  # calibration tokens, shape (count, length)
    params: Any  # section `prune`
    original: list[Module]  # before the first step
    modules: list[Module]
    ratio: float
    budget: int  # parameters still to remove; counts under `ratio_of: parameters`

    @cached_property
    def scores(self) -> list[torch.Tensor]:
        """One score per unit of every module, by the chosen criterion, all from the model as it is now."""
        return score_units(self.params.chosen.criterion, self.model, self.modules, self.windows, self.params)

    def pools(self, pooled: bool) -> list["Pool"]:
        """Return the groups of modules that share one budget.

        Under `ratio_of: parameters` that is all of them. Under `groups` it is each module, or all of a kind if
        `pooled`. A module of a single unit (multi-query attention's key/value head) has none to give and is in no pool.
        """
        prunable = [i for i, module in enumerate(self.original) if module.units > 1]
        if self.params.ratio_of == "parameters":
            return [Pool(prunable, [self.modules[i].cost for i in prunable], self.budget)]
        kinds = sorted({self.original[i].kind for i in prunable})
        groups = [[i for i in prunable if self.original[i].kind == kind] for kind in kinds]
        pools = []
        for group in groups if pooled else [[i] for i in prunable]:
            gone = sum(self.original[i].units - self.modules[i].units for i in group)
            wanted = share_of_units([self.original[i] for i in group], self.ratio)
            pools.append(Pool(group, [1] * len(group), wanted - gone))
        return pools


@dataclass(frozen=True)
class Pool:
    """Modules, by index, that share a budget; `costs` is what one unit of each takes of it."""

    members: list[int]
    costs: list[int]
    budget: int


def units_to_remove(task: Task) -> list[int]:
    """Return how many units each module of `task` gives; every module keeps one.

    What they take of a budget falls short of it by less than one unit. Raises UserError when the ratio is out of reach.
    """
    chosen = allocation.load(task.params.chosen.allocation)
    return fill(task, chosen.keys(task), chosen.POOLED)


def fill(task: Task, keys: list[torch.Tensor], pooled: bool) -> list[int]:
    """Return how many units each module gives when they go in the order of `keys` until the budgets are met."""
    counts = [0] * len(task.modules)
    for pool in task.pools(pooled):
        for i, count in zip(pool.members, take(task, pool, keys), strict=True):
            counts[i] = count
    return counts


def take(task: Task, pool: Pool, keys: list[torch.Tensor]) -> list[int]:
    """Return how many units each member of `pool` gives, taken in the order of their keys, smallest first.

    One that no longer fits the budget is passed over for a smaller one.
    """
    counts, left = [0] * len(pool.members), pool.budget
    order = sorted(
        (key, j) for j, i in enumerate(pool.members) for key in keys[i].tolist()[: task.modules[i].units - 1]
    )
    for _, j in order:
        if pool.costs[j] <= left:
            counts[j] += 1
            left -= pool.costs[j]
    if sum(counts) == len(order) and left >= min(pool.costs, default=1):
        raise UserError(
            f"prune.ratio asks for {pool.budget:,} parameters less, but the pruned layers can give "
            f"{pool.budget - left:,} at most; allowed: a smaller ratio or more layers"
        )
    return counts


def share_of_units(pool: list[Module], ratio: float) -> int:
    """Return how many of the pool's units LLM-Pruner's rule removes at `ratio`.

    It keeps int(size * (1 - ratio)) of the root matrix's outputs, and of those removes whole units only.
    """
    width = pool[0].width
    size = sum(module.units for module in pool) * width
    count = (size - int(size * (1 - ratio))) // width
    if count > sum(module.units for module in pool) - len(pool):
        raise UserError(
            f"prune.ratio = {ratio:g} leaves no unit in {pool[0].name}; allowed: a ratio that keeps one of its "
            f"{pool[0].units} units"
        )
    return count
