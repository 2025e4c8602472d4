"""Expert: whole experts of a mixture go, with their rows of the router, which then chooses among those that are left.

That equals a router that never chooses them (its logits at minus infinity). One number of experts in all layers gives
the plain class of the base, different numbers its pruned class.
"""

import torch
from torch import nn
from transformers import PreTrainedModel

from stages.common.errors import UserError
from stages.models.mixture import Mixture
from stages.models.paging import bring_in
from stages.models.parts import Parts
from stages.models.surgery import rebuild
from stages.prune.expert.allocation import Quota, allocation
from stages.prune.expert.criteria import criterion
from stages.prune.params import PruneParams
from stages.prune.ranges import pruned_layers
from stages.prune.sizes import size_metrics
from stages.prune.units import strongest


def prune(
    model: PreTrainedModel, windows: torch.Tensor, params: PruneParams
) -> tuple[PreTrainedModel, dict[str, float]]:
    """Return the model of fewer experts, which takes over the weights of `model`, and the metrics of the pruning.

    `windows` are the calibration tokens, shape (count, length); `params` is section `prune` of params.yaml, whose
    `mlp_layers` give experts. Step i of n brings the removed share to ratio * i / n, scored again. Raises UserError for
    layers outside the model and for a ratio that leaves fewer experts than the router chooses for a token.
    """
    parts = Parts(model)
    layers = list(pruned_layers(params, len(parts.layers))[1])
    before = model.num_parameters()
    original = experts_of(parts, layers)
    size = parts.mixture(parts.layers[layers[0]]).expert_size + model.config.hidden_size  # with its row of the router
    in_model = sum(experts_of(parts, range(len(parts.layers))))
    for step in range(1, params.iterative_steps + 1 if params.ratio else 1):
        left = experts_of(parts, layers)
        ratio = params.ratio * step / params.iterative_steps
        total = before * ratio / size if params.ratio_of == "parameters" else None
        gone = [old - new for old, new in zip(original, left, strict=True)]
        quota = Quota(original, gone, model.config.num_experts_per_tok, ratio, total)
        scores = criterion(params.chosen.criterion).score(model, layers, windows, params)
        counts = allocation(params.chosen.allocation).counts(quota, scores)
        check_left(quota, layers, left, counts, params)
        for layer, score, count in zip(layers, scores, counts, strict=True):
            bring_in(parts.layers[layer])
            keep_experts(parts.mixture(parts.layers[layer]), strongest(score, count))
    counts = experts_of(parts, range(len(parts.layers)))
    if params.ratio and sum(counts) == in_model:
        print(f"prune: prune.ratio = {params.ratio:g} removes no expert: too few experts for it")
    if len(set(counts)) > 1:  # the loss of router logits takes one number of experts for all layers
        model.config.output_router_logits = False
    metrics = {
        **size_metrics(model, before, sum(original) * size, params.ratio),
        "experts_before": in_model,
        "experts": sum(counts),
    }
    return rebuild(model), metrics


def experts_of(parts: Parts, layers: list[int] | range) -> list[int]:
    """Return the number of experts of each of `layers`."""
    return [parts.mixture(parts.layers[layer]).experts for layer in layers]


def check_left(quota: Quota, layers: list[int], left: list[int], counts: list[int], params: PruneParams) -> None:
    """Raise UserError where a layer would keep fewer experts than the router chooses for a token."""
    for layer, experts, count in zip(layers, left, counts, strict=True):
        if experts - count < quota.least:
            raise UserError(
                f"prune.ratio = {params.ratio:g} would leave {max(0, experts - count)} experts in layer {layer}; "
                f"expected a ratio that leaves num_experts_per_tok = {quota.least}, those that the router chooses for "
                "a token"
            )


@torch.no_grad()
def keep_experts(mixture: Mixture, keep: torch.Tensor) -> None:
    """Cut `mixture` down to the experts `keep`, ascending, and its router to their rows."""
    router, stack = mixture.router, mixture.stack
    keep = keep.to(router.weight.device)
    for name, tensor in mixture.tensors.items():
        setattr(stack, name, nn.Parameter(tensor[keep], requires_grad=False))
    router.weight = nn.Parameter(router.weight[keep], requires_grad=False)
    router.num_experts = stack.num_experts = len(keep)
