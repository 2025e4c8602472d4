"""Taylor: how much the calibration loss would change without a unit (LLM-Pruner, Ma et al. 2023, sec. 3.2).

With weight w, gradient g of the mean loss, and h = the mean over windows of the squared per-window gradient:

    param_first   sum |w g|                  its element-wise importance, first order
    vectorize     |sum w g|                  its vector-wise importance, first order
    param_second  sum |w h w|                the second-order term with the Fisher diagonal
    param_mix     sum |w g - w h w / 2|      both
"""

from itertools import repeat

import torch
from transformers import PreTrainedModel

from stages.models.mixture import stored, within
from stages.models.prunable import BLOCK, Prunable
from stages.prune.criteria import Criterion
from stages.prune.gradients import gradients
from stages.prune.params import PruneParams

SECOND_ORDER = ("param_second", "param_mix")


class Taylor(Criterion):
    def score(
        self, model: PreTrainedModel, modules: list[Prunable], windows: torch.Tensor, params: PruneParams
    ) -> list[torch.Tensor]:
        """Return the salience of each unit's slice of each matrix, per module a (matrices, units) tensor, in float32.

        Raises UserError when the calibration loss is not finite.
        """
        scores = [torch.zeros(len(module.matrices), module.units) for module in modules]
        places: dict[torch.Tensor, list[tuple[int, int]]] = {}
        for i, module in enumerate(modules):
            for j, (matrix, _) in enumerate(module.matrices):
                places.setdefault(stored(matrix), []).append((i, j))

        def reduce(weight: torch.Tensor, gradient: torch.Tensor, squared: torch.Tensor | None) -> None:
            for i, j in places[weight]:
                module, (matrix, dim) = modules[i], modules[i].matrices[j]
                square = None if squared is None else within(matrix, squared)
                lines = line_sums(within(matrix, weight), within(matrix, gradient), square, params.taylor, dim)
                total = module.by_unit(lines, dim).view(module.units, -1).sum(1)
                scores[i][j] = total.abs().cpu()

        gradients(model, windows, list(places), reduce, per_window=params.taylor in SECOND_ORDER)
        return scores


def line_sums(
    weight: torch.Tensor, gradient: torch.Tensor, squared: torch.Tensor | None, variant: str, dim: int
) -> torch.Tensor:
    """Return the sums of salience, absolute unless `vectorize`, over each row (`dim` 0) or column (1) of a matrix.

    Block by block: what is computed on the way stays in the processor's cache.
    """
    rows = max(1, BLOCK // weight.shape[1])
    sums: list[torch.Tensor] = []
    seconds = repeat(None) if squared is None else squared.split(rows)
    for block in zip(weight.split(rows), gradient.split(rows), seconds, strict=False):
        values = salience(*block, variant)
        lines = (values if variant == "vectorize" else values.abs_()).sum(1 - dim)
        if dim and sums:
            sums[0] += lines
        else:
            sums.append(lines)
    return torch.cat(sums)


def salience(weight: torch.Tensor, gradient: torch.Tensor, squared: torch.Tensor | None, variant: str) -> torch.Tensor:
    """Return the element-wise salience, same shape as `weight`, in float32."""
    weight = weight.detach().float()
    if squared is None:
        return weight * gradient
    if variant == "param_second":
        return weight * squared * weight
    return weight * gradient - 0.5 * weight * squared * weight
