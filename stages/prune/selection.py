"""Choose the units to remove: an allocation's keys give the order, the ratio says how far to go."""

import torch

from stages.common.errors import UserError
from stages.prune import allocation
from stages.prune.units import Module


def select_units(
    modules: list[Module],
    scores: list[torch.Tensor],
    original: list[Module],
    ratio: float,
    params,
    budget: int,
) -> list[torch.Tensor]:
    """Return the indices of the units to keep, per module, in ascending order.

    `original` are the modules before the first step, `ratio` the share to have removed after this one and `budget` the
    number of parameters still to remove, which counts under `ratio_of: parameters`. Every module keeps a unit.
    Raises UserError when the ratio is out of reach.
    """
    chosen = allocation.load(params.chosen.allocation)
    keys = chosen.keys(modules, scores, [module.units for module in original])
    if params.ratio_of == "parameters":
        removed = within_budget(modules, keys, budget)
    else:
        removed = [set() for _ in modules]
        for pool in pools(original, chosen.POOLED):
            count = share_of_units([original[i] for i in pool], ratio) - sum(
                original[i].units - modules[i].units for i in pool
            )
            for i, unit in in_order(modules, keys, pool)[:count]:
                removed[i].add(unit)
    return [
        torch.tensor([unit for unit in range(module.units) if unit not in gone])
        for module, gone in zip(modules, removed, strict=True)
    ]


def pools(modules: list[Module], pooled: bool) -> list[list[int]]:
    """Return the groups of modules, as indices, that share one count: all of a kind if `pooled`, else each alone.

    A module of a single unit (the one key/value head of multi-query attention) has none to give and is in no pool.
    """
    prunable = [i for i, module in enumerate(modules) if module.units > 1]
    if not pooled:
        return [[i] for i in prunable]
    kinds = sorted({modules[i].kind for i in prunable})
    return [[i for i in prunable if modules[i].kind == kind] for kind in kinds]


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


def in_order(modules: list[Module], keys: list[torch.Tensor], pool: list[int]) -> list[tuple[int, int]]:
    """Return the pool's (module, unit) pairs, smallest key first, ties by position; each module's best unit stays."""
    pairs = []
    for i in pool:
        by_key = keys[i].argsort(stable=True).tolist()
        pairs += [(keys[i][unit].item(), i, unit) for unit in by_key[:-1]]
    return [(i, unit) for _, i, unit in sorted(pairs)]


def within_budget(modules: list[Module], keys: list[torch.Tensor], budget: int) -> list[set[int]]:
    """Return the units to remove, per module, so that what they hold falls short of `budget` by less than one unit.

    Units are taken in the order of their keys; one that no longer fits is passed over for a smaller one.
    """
    removed: list[set[int]] = [set() for _ in modules]
    candidates = in_order(modules, keys, list(range(len(modules))))
    left = budget
    for i, unit in candidates:
        if modules[i].cost <= left:
            removed[i].add(unit)
            left -= modules[i].cost
    everything = sum(len(gone) for gone in removed) == len(candidates)
    if everything and left >= min(module.cost for module in modules):
        raise UserError(
            f"prune.ratio asks for {budget:,} parameters less, but the pruned layers can give {budget - left:,} at most; "
            "allowed: a smaller ratio or more layers"
        )
    return removed
