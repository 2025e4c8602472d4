"""Layer: remove whole decoder layers; the result is a plain model with fewer layers (ShortGPT, Men et al. 2024).

`base_layers` in config.json lists the base's layers that are left.
"""

import torch
from torch import nn
from transformers import PreTrainedModel

from stages.common.errors import UserError
from stages.models.parts import Parts
from stages.models.surgery import rebuild
from stages.prune.layer.criteria import criterion
from stages.prune.params import PruneParams
from stages.prune.ranges import pruned_layers
from stages.prune.sizes import size_metrics


def prune(
    model: PreTrainedModel, windows: torch.Tensor, params: PruneParams
) -> tuple[PreTrainedModel, dict[str, float]]:
    """Return the model without the layers of the lowest scores, sharing its weights, and the metrics of the pruning.

    `windows` are the calibration tokens, shape (count, length); `params` is section `prune` of params.yaml, whose two
    ranges are the same or one of them null. Step i of n brings the removed share to ratio * i / n, scored again. Raises
    UserError for layers outside the model and for a ratio that is out of reach or leaves no layer.
    """
    left = list(range(len(Parts(model).layers)))  # as the base counts them
    attention, mlp = pruned_layers(params, len(left))
    candidates = attention or mlp
    score = criterion(params.chosen.criterion).score
    before, sizes = model.num_parameters(), [parameters(layer) for layer in Parts(model).layers]
    if params.ratio_of == "parameters":
        whole, prices = before, sizes
    else:
        whole, prices = len(candidates), [1] * len(sizes)
    for step in range(1, params.iterative_steps + 1 if params.ratio else 1):
        budget = whole * params.ratio * step / params.iterative_steps - sum(prices) + sum(prices[i] for i in left)
        places = [place for place, i in enumerate(left) if i in candidates]
        scores = score(model, places, windows, params) if places else torch.empty(0)
        gone = {places[k] for k in nearest(scores, [prices[left[place]] for place in places], budget)}
        if len(gone) == len(left):
            raise UserError(f"prune.ratio = {params.ratio:g} leaves no layer; lower the ratio or shorten the range")
        kept = [place for place in range(len(left)) if place not in gone]
        model, left = keep_layers(model, kept), [left[place] for place in kept]
    if params.ratio and len(left) == len(sizes):
        print(f"prune: prune.ratio = {params.ratio:g} removes no layer, since there are too few")
    model.config.base_layers = left
    return model, {
        **size_metrics(model, before, sum(sizes[i] for i in candidates), params.ratio),
        "layers_before": len(sizes),
        "layers": len(left),
    }


def parameters(layer: nn.Module) -> int:
    """Return the number of parameters of a layer."""
    return sum(parameter.numel() for parameter in layer.parameters())


def nearest(scores: torch.Tensor, prices: list[int], budget: float) -> list[int]:
    """Return which layers go, those of the lowest scores first, such that their prices come nearest to `budget`.

    Of two that are as near the larger is taken, as LLM-Pruner's rule takes the larger number of units; a layer that
    leads away from the budget is passed over. Raises UserError when all together fall short by half a layer or more.
    """
    chosen = []
    for k in scores.argsort(stable=True).tolist():
        if prices[k] <= 2 * budget:
            chosen.append(k)
            budget -= prices[k]
    if len(chosen) == len(prices) and 2 * budget >= min(prices, default=1):
        raise UserError(
            f"prune.ratio asks for {budget:,.0f} parameters more than the pruned layers hold; "
            "lower the ratio or prune more layers"
        )
    return chosen


def keep_layers(model: PreTrainedModel, places: list[int]) -> PreTrainedModel:
    """Return a model of the layers at `places` alone, in their order, with the weights of `model`."""
    parts = Parts(model)
    parts.layers = [parts.layers[place] for place in places]
    for key in parts.family.layer_keys:
        if values := getattr(model.config, key, None):
            setattr(model.config, key, [values[place] for place in places])
    model.config.num_hidden_layers = len(places)
    return rebuild(model)
