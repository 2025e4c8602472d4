"""Rank: each matrix of attention and MLP becomes the product of two thin ones, where that has fewer weights.

The matrices are cut one after another, each with its inputs in the model as pruned so far; those with the same inputs
(q, k and v; gate and up) share their statistics. An allocation that compares matrices reads all of the dense model
first: then the windows pass each layer twice.
"""

import torch
from torch import nn
from transformers import PreTrainedModel

from stages.common.errors import UserError
from stages.common.progress import progress
from stages.models.modeling_pruned import LowRank
from stages.models.paging import bring_in
from stages.models.parts import Parts
from stages.models.surgery import rebuild
from stages.prune.activations import Activations
from stages.prune.groups import InputGroup, input_groups
from stages.prune.methods import Method
from stages.prune.params import PruneParams
from stages.prune.rank.allocation import Size, allocation
from stages.prune.rank.criteria import criterion
from stages.prune.rank.factors import factors, squared_values
from stages.prune.rank.update import update
from stages.prune.sizes import size_metrics


def prune(
    model: PreTrainedModel, windows: torch.Tensor, params: PruneParams
) -> tuple[PreTrainedModel, dict[str, float]]:
    """Return the model with matrices of low rank, sharing its other weights, and the metrics of the pruning.

    `windows` are the calibration tokens, shape (count, length); `params` is section `prune` of params.yaml. The ratio
    is met to within a unit of rank of one matrix. Raises UserError for layers outside the model and a ratio out of
    reach.
    """
    groups, before = list(input_groups(model, params)), model.num_parameters()
    sizes = [Size(*linear.weight.shape) for group in groups for linear in group.matrices.values()]
    prunable = sum(size.dense for size in sizes)
    removed = params.ratio * (before if params.ratio_of == "parameters" else prunable)
    ranks: list[int | None] = [None] * len(sizes)
    if removed:
        ranks = allocate(model, windows, params, groups, sizes, prunable - removed)
        cut(model, windows, params.chosen, groups, ranks)
    model = rebuild(model)
    return model, {
        **size_metrics(model, before, prunable, params.ratio),
        "matrices": len(ranks),
        "matrices_of_low_rank": len(ranks) - ranks.count(None),
    }


def allocate(
    model: PreTrainedModel,
    windows: torch.Tensor,
    params: PruneParams,
    groups: list[InputGroup],
    sizes: list[Size],
    kept: float,
) -> list[int | None]:
    """Return the rank of every matrix, None for one that stays whole; UserError where `kept` weights are too few."""
    ranks_of = allocation(params.chosen.allocation)
    if kept < sum(size.kept(1 if size.most else None) for size in sizes):
        raise UserError(
            f"prune.ratio = {params.ratio:g} leaves {max(0, int(kept)):,} of the {sum(size.dense for size in sizes):,} "
            "weights of the pruned matrices, less than rank 1 has; lower the ratio or prune more layers"
        )
    values = dense_values(model, windows, params.chosen, groups) if ranks_of.needs_values else []
    ranks = ranks_of.ranks(sizes, kept, values)
    if all(rank is None for rank in ranks):
        print(f"prune: prune.ratio = {params.ratio:g} is too small to reduce the rank of any matrix")
    return ranks


@torch.no_grad()
def dense_values(
    model: PreTrainedModel, windows: torch.Tensor, chosen: Method, groups: list[InputGroup]
) -> list[torch.Tensor]:
    """Return the squared singular values of every matrix of the dense model, in the metric of the criterion."""
    by, found = criterion(chosen.criterion), list[torch.Tensor]()
    activations = Activations(model, windows) if by.needs_inputs else None
    for group in progress(groups, "singular values"):
        metric = by.metric(activations.inputs(group) if activations else None)
        bring_in(Parts(model).layers[group.layer])
        found += [squared_values(linear.weight.double(), metric).cpu() for linear in group.matrices.values()]
    return found


@torch.no_grad()
def cut(
    model: PreTrainedModel, windows: torch.Tensor, chosen: Method, groups: list[InputGroup], ranks: list[int | None]
) -> None:
    """Put thin matrices of `ranks` in the place of those of `groups`, and note them in the model's config."""
    by, then, layers, left = criterion(chosen.criterion), update(chosen.update), Parts(model).layers, iter(ranks)
    needs = by.needs_inputs or then.needs_targets
    activations = Activations(model, windows, with_targets=then.needs_targets) if needs else None
    noted: list[dict[str, list[int]]] = [{} for _ in layers]
    for group in progress(groups, "pruning"):
        layer, own = layers[group.layer], {name: next(left) for name in group.matrices}
        if not (any(own.values()) or then.needs_targets):
            continue
        inputs = activations.inputs(group) if activations else None
        bring_in(layer)
        metric = by.metric(inputs)
        for name, aim in then.aims(group, inputs):
            linear, rank = group.matrices[name], own[name]
            if rank is None:
                linear.weight.copy_(aim)
            else:
                place = next(place for place, module in layer.named_modules() if module is linear)
                layer.set_submodule(place, thin(linear, *factors(aim, metric, rank)))
                noted[group.layer][place] = [linear.out_features, rank, linear.in_features]
        del inputs  # the next group's statistics are not held beside them
    if activations:
        then.finish(activations)
    if any(noted):
        model.config.ranks = noted


def thin(linear: nn.Linear, left: torch.Tensor, right: torch.Tensor) -> LowRank:
    """Return L R in the place of `linear`, with its bias, dtype and device."""
    with torch.device("meta"):
        module = LowRank(linear.out_features, len(right), linear.in_features, linear.bias is not None)
    for half, weight in ((module.right, right), (module.left, left)):
        half.weight = nn.Parameter(weight.to(linear.weight.dtype).contiguous(), requires_grad=False)
    module.left.bias = linear.bias
    return module.eval()
