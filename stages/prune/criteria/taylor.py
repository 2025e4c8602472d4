"""Taylor: how much the calibration loss would change without a unit (LLM-Pruner, Ma et al. 2023).

With weight w, gradient g of the mean loss, and h = the mean over windows of the squared per-window gradient:

    param_first   sum |w g|                  its element-wise importance, first order
    vectorize     |sum w g|                  its vector-wise importance, first order
    param_second  sum |w h w|                the second-order term with the Fisher diagonal
    param_mix     sum |w g - w h w / 2|      both
"""

import torch

from stages.prune.gradients import gradients
from stages.prune.units import by_unit

SECOND_ORDER = ("param_second", "param_mix")


def score(model, modules, windows, params) -> list[torch.Tensor]:
    """Return the salience of each unit's slice of each matrix, per module a (matrices, units) tensor, in float32.

    Raises UserError when the calibration loss is not finite.
    """
    scores = [torch.zeros(len(module.matrices), module.units) for module in modules]
    places = {
        linear.weight: (i, j) for i, module in enumerate(modules) for j, (linear, _) in enumerate(module.matrices)
    }

    def reduce(weight: torch.Tensor, gradient: torch.Tensor, squared: torch.Tensor | None) -> None:
        i, j = places[weight]
        view, others = by_unit(
            salience(weight, gradient, squared, params.taylor), modules[i].units, modules[i].matrices[j][1]
        )
        total = view.sum(others).abs() if params.taylor == "vectorize" else view.abs().sum(others)
        scores[i][j] = total.cpu()

    gradients(model, windows, list(places), reduce, per_window=params.taylor in SECOND_ORDER)
    return scores


def salience(weight, gradient, squared, variant: str) -> torch.Tensor:
    """Return the element-wise salience, same shape as `weight`, in float32."""
    weight = weight.detach().float()
    if variant == "param_second":
        return weight * squared * weight
    first = weight * gradient
    return first - 0.5 * weight * squared * weight if variant == "param_mix" else first
