"""Sums over each unit's weights, and which units go."""

import torch

from stages.common.errors import UserError
from stages.models.prunable import BLOCK, Prunable


def by_unit(tensor: torch.Tensor, units: int, dim: int) -> tuple[torch.Tensor, tuple[int, int]]:
    """Return a 3-D view of a matrix with the units as dimension `dim`, and the two dimensions to reduce over.

    The view copies nothing: a matrix of shape (out, in) becomes (units, out/units, in) or (out, units, in/units).
    """
    return tensor.unflatten(dim, (units, -1)), ((1, 2) if dim == 0 else (0, 2))


@torch.no_grad()
def power_sums_by_unit(matrix: torch.Tensor, units: int, dim: int, order: int) -> torch.Tensor:
    """Return the sum of |w|^order, order 1 or 2, over each unit's slice of a matrix, shape (units,), in float32.

    A few rows at a time, which stay in the processor's cache: torch's own norms over columns take seven times as long.
    """
    rows_at_a_time = max(1, BLOCK // matrix.shape[1])
    blocks = matrix.split(rows_at_a_time)
    if dim == 0:
        lines = torch.cat([torch.linalg.vector_norm(rows, order, 1, dtype=torch.float32) for rows in blocks]) ** order
    else:
        sums = torch.zeros(rows_at_a_time, matrix.shape[1], device=matrix.device)
        for rows in blocks:
            rows = rows.float()
            sums[: len(rows)].addcmul_(rows, rows if order == 2 else rows.sign())
        lines = sums.sum(0)
    return lines.view(units, -1).sum(1)


def strongest(score: torch.Tensor, count: int) -> torch.Tensor:
    """Return all units but the `count` of the lowest scores, in ascending order; of equal ones the first go."""
    return score.argsort(stable=True)[count:].sort().values


def share_of_units(pool: list[Prunable], ratio: float) -> int:
    """Return how many of the pool's units LLM-Pruner's rule removes at `ratio`.

    It keeps int(size * (1 - ratio)) of the root matrix's outputs, and of those removes whole units only.
    """
    width = pool[0].width
    size = sum(module.units for module in pool) * width
    count = (size - int(size * (1 - ratio))) // width
    if count > sum(module.units for module in pool) - len(pool):
        raise UserError(
            f"prune.ratio = {ratio:g} leaves no unit in {pool[0].name}; expected a ratio that keeps one of its "
            f"{pool[0].units} units"
        )
    return count
