"""The task of one pruning step, and the budgets that it has to meet."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from transformers import PreTrainedModel

from stages.models.prunable import Prunable
from stages.prune.block.costs import Costs
from stages.prune.block.widths import allowed_widths
from stages.prune.criteria import score_units
from stages.prune.params import PruneParams
from stages.prune.units import share_of_units


@dataclass(frozen=True)
class Task:
    """What one pruning step has to do: bring the removed share of `original` to `ratio`, from `modules` as they are."""

    model: PreTrainedModel
    windows: torch.Tensor  # calibration tokens, shape (count, length)
    params: PruneParams
    original: list[Prunable]  # before the first step
    modules: list[Prunable]
    ratio: float
    costs: Costs  # of the modules in `original`; count under `ratio_of: parameters` and with a budget
    excess: float  # of those, what has still to go

    def of(self, places: list[int], excess: float) -> Task:
        """Return the task of removing `excess` from the modules at `places` alone."""
        prices, units, rests = self.costs.prices, self.costs.units, self.costs.rests
        costs = replace(
            self.costs,
            prices=[prices[i] for i in places], units=[units[i] for i in places], rests=[rests[i] for i in places],
        )  # fmt: skip
        original, modules = [self.original[i] for i in places], [self.modules[i] for i in places]
        return replace(self, original=original, modules=modules, costs=costs, excess=excess)

    @cached_property
    def scores(self) -> list[torch.Tensor]:
        """One score per unit of every module, by the chosen criterion, all from the model as it is now."""
        return score_units(self.params.chosen.criterion, self.model, self.modules, self.windows, self.params)

    @cached_property
    def bundles(self) -> list[Bundle]:
        """The modules that give alike: all of a kind under `layout: uniform`, else each for itself.

        The experts of a layer always do: one tensor holds a matrix of all of them. A module of a single unit
        (multi-query attention's key/value head) has none to give and is in no bundle.
        """
        alike: dict[tuple[int, str], list[int]] = {}
        for i, module in enumerate(self.original):
            if module.units > 1:
                layer = 0 if self.params.layout == "uniform" else module.layer
                alike.setdefault((layer, module.kind), []).append(i)
        bundles = []
        for members in alike.values():
            first = self.modules[members[0]]
            price = sum(self.costs.prices[i] for i in members) if self.params.joint else len(members)
            widths = allowed_widths(first, self.params, self.model.config.hidden_size)
            bundles.append(Bundle(members, first.units, widths, price))
        return [bundle for bundle in bundles if bundle.price > 0]  # a latency may not depend on a width

    def pools(self, pooled: bool) -> list[Pool]:
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
