"""How many units each module gives: an allocation's keys give the order, the ratio says how far to go."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from transformers import PreTrainedModel

from stages.common.errors import UserError
from stages.prune import allocation
from stages.prune.costs import Costs
from stages.prune.criteria import score_units
from stages.prune.units import Module
from stages.prune.widths import allowed_widths


@dataclass(frozen=True)
class Task:
    """What one pruning step has to do: bring the removed share of `original` to `ratio`, from `modules` as they are."""

    model: PreTrainedModel
    windows: torch.Tensor  # calibration tokens, shape (count, length)
    params: Any  # section `prune`
    original: list[Module]  # before the first step
    modules: list[Module]
    ratio: float
    costs: Costs  # of the modules in `original`; count under `ratio_of: parameters` and with a budget
    excess: float  # of those, what has still to go

    @cached_property
    def scores(self) -> list[torch.Tensor]:
        """One score per unit of every module, by the chosen criterion, all from the model as it is now."""
        return score_units(self.params.chosen.criterion, self.model, self.modules, self.windows, self.params)

    @cached_property
    def bundles(self) -> list["Bundle"]:
        """The modules that give alike: all of a kind under `layout: uniform`, else each for itself.

        A module of a single unit (multi-query attention's key/value head) has none to give and is in no bundle.
        """
        singles = [[i] for i, module in enumerate(self.original) if module.units > 1]
        if self.params.layout == "uniform":
            kinds = sorted({self.modules[i].kind for (i,) in singles})
            singles = [[i for (i,) in singles if self.modules[i].kind == kind] for kind in kinds]
        bundles = []
        for members in singles:
            first = self.modules[members[0]]
            price = sum(self.costs.prices[i] for i in members) if self.params.joint else len(members)
            widths = allowed_widths(first, self.params, self.model.config.hidden_size)
            bundles.append(Bundle(members, first.units, widths, price))
        return [bundle for bundle in bundles if bundle.price > 0]  # a latency may not depend on a width

    def pools(self, pooled: bool) -> list["Pool"]:
        """Return the groups of bundles that share one budget.

        Under `ratio_of: parameters` and with `prune.budget` that is all of them. Under `ratio_of: groups` it is each
        one, or all of a kind if `pooled`.
        """
        if self.params.joint:
            return [Pool(self.bundles, self.excess, at_least=self.params.budget is not None)]
        groups = [[bundle] for bundle in self.bundles]
        if pooled:
            kinds = sorted({self.modules[bundle.members[0]].kind for bundle in self.bundles})
            groups = [[each for each in self.bundles if self.modules[each.members[0]].kind == kind] for kind in kinds]
        pools = []
        for group in groups:
            members = [i for bundle in group for i in bundle.members]
            gone = sum(self.original[i].units - self.modules[i].units for i in members)
            together = [members] if pooled else [[i] for i in members]
            wanted = sum(share_of_units([self.original[i] for i in each], self.ratio) for each in together)
            pools.append(Pool(group, wanted - gone, at_least=False))
        return pools


@dataclass(frozen=True)
class Bundle:
    """Modules, by index, that give the same number of units each."""

    members: list[int]
    units: int  # of each
    widths: list[int]  # that each may keep, descending
    price: float  # what one unit of each takes of the budget

    @property
    def counts(self) -> list[int]:
        """The numbers of units that each may give, ascending; more than 0 at first where rounding takes some anyway."""
        return [self.units - width for width in self.widths]


@dataclass(frozen=True)
class Pool:
    """Bundles that share a budget."""

    bundles: list[Bundle]
    budget: float
    at_least: bool  # a budget of the model's cost must be kept to, a ratio be met as nearly as can be


def units_to_remove(task: Task) -> list[int]:
    """Return how many units each module of `task` gives; every module keeps one.

    Raises UserError when the ratio or the budget is out of reach.
    """
    chosen = allocation.load(task.params.chosen.allocation)
    return fill(task, chosen.keys(task), chosen.POOLED)


def fill(task: Task, keys: list[torch.Tensor], pooled: bool) -> list[int]:
    """Return how many units each module gives when they go in the order of `keys` until the budgets are met."""
    counts = [0] * len(task.modules)
    for pool in task.pools(pooled):
        given = take(pool, keys)
        if task.params.joint:
            check_reached(task, pool, given)
        for bundle, count in zip(pool.bundles, given, strict=True):
            for i in bundle.members:
                counts[i] = count
    return counts


def take(pool: Pool, keys: list[torch.Tensor]) -> list[int]:
    """Return how many units each bundle of `pool` gives, taken in the order of their keys, smallest first.

    The key of a bundle's step from one width to the next is the mean of its members' keys for the last unit of it. A
    step that no longer fits the budget is passed over for a smaller one; at the end the smallest is taken if that ends
    nearer to the budget, or if the budget is the least that must go.
    """
    given = [bundle.counts[0] for bundle in pool.bundles]
    left = pool.budget - sum(count * bundle.price for count, bundle in zip(given, pool.bundles, strict=True))
    order = []
    for j, bundle in enumerate(pool.bundles):
        mean = torch.stack([keys[i] for i in bundle.members]).mean(0).tolist()
        order += [(mean[count - 1], j, count) for count in bundle.counts[1:]]
    for _, j, count in sorted(order):
        price = (count - given[j]) * pool.bundles[j].price
        if price <= left:
            given[j] = count
            left -= price
    more = [(price, j, count) for j, bundle in enumerate(pool.bundles) for price, count in next_step(bundle, given[j])]
    if more and left > 0 and (pool.at_least or min(more)[0] < 2 * left):
        _, j, count = min(more)
        given[j] = count
    return given


def next_step(bundle: Bundle, given: int) -> list[tuple[float, int]]:
    """Return the price and the count of the bundle's next width once each member has given `given`, if there is one."""
    return [((count - given) * bundle.price, count) for count in bundle.counts if count > given][:1]


def check_reached(task: Task, pool: Pool, given: list[int]) -> None:
    """Raise UserError if all that the pool can give falls short of a ratio by one unit, or of a budget by anything."""
    short = pool.budget - sum(count * bundle.price for count, bundle in zip(given, pool.bundles, strict=True))
    smallest = min((bundle.widths[-1] * bundle.price for bundle in pool.bundles), default=1)
    if any(count < bundle.counts[-1] for count, bundle in zip(given, pool.bundles, strict=True)):
        return
    if pool.at_least and short > 0:
        unit, least = task.costs.unit, (task.costs.limit + short) / task.costs.scale
        raise UserError(
            f"prune.budget = {task.params.budget} is out of reach: with all that the pruned layers can give the model "
            f"still takes {least:,.4g} {unit}; allowed: a larger budget or more layers"
        )
    if not pool.at_least and short >= smallest:
        raise UserError(
            f"prune.ratio asks for {pool.budget:,.0f} parameters less, but the pruned layers can give "
            f"{pool.budget - short:,.0f} at most; allowed: a smaller ratio or more layers"
        )


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
