"""Sensitivity: the allocation of least summed loss, each module's loss measured at several levels on its own.

Each module alone loses 1/LEVELS, 2/LEVELS, ... of its units by the chosen criterion and update, and the divergence from
the dense model's next-token distributions is measured on the calibration windows. One level per module is then chosen
such that the sum is least and the budget reached: a multiple-choice knapsack, solved by dynamic programming (SPDY,
Frantar & Alistarh 2022, algorithm 1; ZipLM, Kurtic et al. 2023).
"""

from collections.abc import Callable
from functools import partial

import numpy as np
import torch

from stages.models.prunable import Prunable
from stages.prune.block.allocation import Allocation
from stages.prune.block.divergence import Dense
from stages.prune.block.filling import fill
from stages.prune.block.sequence import visit_modules
from stages.prune.block.task import Bundle, Task
from stages.prune.block.update import update
from stages.prune.inputs import Inputs

Loss = Callable[[], float]  # of the model as it is by then, in nats per token

LEVELS = 10
BUCKETS = 4000  # of the budget: the resolution of the knapsack; single units make up the rest


class Sensitivity(Allocation):
    def losses(self, task: Task) -> list[dict[int, float]]:
        """Return for every module the divergence from the dense model by the number of units removed from it alone."""
        dense = Dense(task.model, task.windows)
        return losses_by_level(task, self.tried(task), lambda inputs: partial(dense.from_layer, inputs.activations))

    def tried(self, task: Task) -> dict[int, list[int]]:
        """Return by module the numbers of its units to try to remove."""
        return {i: levels(bundle) for bundle in task.bundles for i in bundle.members}

    def counts(self, task: Task) -> list[int]:
        """Choose the levels of least summed loss."""
        return topped_up(task, best_counts(task, self.losses(task)))


def best_counts(task: Task, losses: list[dict[int, float]]) -> list[int]:
    """Return the number of units that each module gives in the allocation of least summed loss."""
    counts = [0] * len(task.modules)
    for pool in task.pools(pooled=True):
        tables = [summed([losses[i] for i in bundle.members]) for bundle in pool.bundles]
        prices = zip(tables, (bundle.price for bundle in pool.bundles), strict=True)
        costs = [{count: count * price for count in table} for table, price in prices]
        chosen = knapsack(tables, costs, pool.budget)
        for bundle, count in zip(pool.bundles, chosen, strict=True):
            for i in bundle.members:
                counts[i] = count
    return counts


def topped_up(task: Task, counts: list[int]) -> list[int]:
    """Return `counts` with what is left of a budget filled up evenly: the knapsack's levels do not meet it exactly."""
    even = [torch.arange(1, module.units + 1, dtype=torch.float64) / module.units for module in task.modules]
    return fill(task, even, pooled=True, first=counts)


def summed(losses: list[dict[int, float]]) -> dict[int, float]:
    """Return the sum of several modules' losses by the number of units that each of them gives."""
    return {count: sum(each[count] for each in losses) for count in losses[0]}


def levels(bundle: Bundle) -> list[int]:
    """Return the numbers of units to try to remove: the allowed ones that are nearest to tenths, and the most."""
    wanted = [bundle.units * level / LEVELS for level in range(LEVELS)]
    return sorted({min(bundle.counts, key=lambda count: abs(count - each)) for each in wanted} | {bundle.counts[-1]})


def losses_by_level(
    task: Task, tried: dict[int, list[int]], loss_at: Callable[[Inputs], Loss]
) -> list[dict[int, float]]:
    """Return for every module the loss in nats per token by the number of units removed from it alone.

    Of module i these are tried[i], of others 0; with all units its biases go too. `loss_at` is given the inputs of each
    module while it is whole, and returns the function that gives the loss of what its output matrix has become.
    """
    chosen = task.params.chosen
    then = update(chosen.update)
    losses: list[dict[int, float]] = []

    def measure(i: int, module: Prunable, inputs: Inputs, score: torch.Tensor) -> None:
        order, loss = score.argsort(stable=True), loss_at(inputs)
        losses.append({})
        there = [each for each in (module.output.weight, module.output.bias) if each is not None]
        whole = [each.detach().clone() for each in there]
        for count in tried.get(i, [0]):
            if count < module.units:
                then.update(module, order[count:].sort().values, inputs)
            silence(module, order[:count])
            losses[-1][count] = loss() if count else 0.0
            with torch.no_grad():
                for each, value in zip(there, whole, strict=True):
                    each.copy_(value)

    visit_modules(task, measure, then, chosen.allocation)
    return losses


@torch.no_grad()
def silence(module: Prunable, units: torch.Tensor) -> None:
    """Zero the output matrix's columns of `units`, and its bias where they are all: that equals removing them."""
    module.output.weight[:, module.columns(units).to(module.output.weight.device)] = 0
    if len(units) == module.units and module.output.bias is not None:
        module.output.bias.zero_()


def knapsack(losses: list[dict[int, float]], costs: list[dict[int, float]], budget: float) -> list[int]:
    """Return the level of every module such that the levels cost at least `budget`, rounded, at the least summed loss.

    losses[i] maps the numbers of units that module i may give to its loss, costs[i] to what they cost. Where the budget
    is out of reach, the most that there is.
    """
    bucket = max(1, budget // BUCKETS)
    size = max(0, int(budget // bucket))
    best = np.full(size + 1, np.inf)  # best[c]: least loss at cost c; the last entry stands for all above it too
    best[0] = 0.0
    choices = []
    for table, cost in zip(losses, costs, strict=True):
        new, choice = np.full(size + 1, np.inf), np.zeros((size + 1, 2), dtype=int)  # choice: (place before, count)
        for count, loss in table.items():
            shift = min(size, round(cost[count] / bucket))
            before = np.arange(size + 1) - shift
            before[size] += int(best[size - shift :].argmin())
            total = np.where(before >= 0, best[before], np.inf) + loss
            better = total < new
            new[better] = total[better]
            choice[better] = np.stack([before, np.full(size + 1, count)], 1)[better]
        best = new
        choices.append(choice)
    place, counts = int(np.flatnonzero(np.isfinite(best))[-1]), []
    for choice in reversed(choices):
        place, count = (int(each) for each in choice[place])
        counts.append(count)
    return counts[::-1]
