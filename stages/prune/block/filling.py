"""Remove units in one order over all modules, until the budgets are met."""

import torch

from stages.common.errors import UserError
from stages.prune.block.task import Bundle, Pool, Task


def fill(task: Task, keys: list[torch.Tensor], pooled: bool, first: list[int] | None = None) -> list[int]:
    """Return how many units each module gives when they go in the order of `keys` until the budgets are met.

    keys[i] are those of module i, ascending: the k-th belongs to the k-th unit that it would give. With `first`, the
    first first[i] units of module i go before all others. Every module keeps one unit. Raises UserError when the ratio
    or the budget is out of reach.
    """
    counts = [0] * len(task.modules)
    for pool in task.pools(pooled):
        given = take(pool, keys, first or counts)
        if task.params.joint:
            check_reached(task, pool, given)
        for bundle, count in zip(pool.bundles, given, strict=True):
            for i in bundle.members:
                counts[i] = count
    return counts


def take(pool: Pool, keys: list[torch.Tensor], first: list[int]) -> list[int]:
    """Return how many units each bundle of `pool` gives: those of `first`, then by their keys, smallest first.

    The key of a bundle's step from one width to the next is the mean of its members' keys for the last unit of it. A
    step that no longer fits the budget is passed over for a smaller one; at the end the smallest is taken if that ends
    nearer to the budget, or if the budget is the least that must go.
    """
    given = [bundle.counts[0] for bundle in pool.bundles]
    left = pool.budget - sum(count * bundle.price for count, bundle in zip(given, pool.bundles, strict=True))
    order = []
    for j, bundle in enumerate(pool.bundles):
        mean = torch.stack([keys[i] for i in bundle.members]).mean(0).tolist()
        order += [(count > first[bundle.members[0]], mean[count - 1], j, count) for count in bundle.counts[1:]]
    for *_, j, count in sorted(order):
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
            f"prune.budget = {task.params.budget} cannot be met: with the pruned layers at their minimum the model "
            f"still takes {least:,.4g} {unit}; set a larger budget or prune more layers"
        )
    if not pool.at_least and short >= smallest:
        raise UserError(
            f"prune.ratio asks for {pool.budget:,.0f} parameters less, but the pruned layers can give "
            f"{pool.budget - short:,.0f} at most; lower the ratio or prune more layers"
        )
