"""Block: MLP channels and key/value heads. Score, choose, cut; as often as `prune.iterative_steps` says."""

import torch
from transformers import PreTrainedModel

from stages.models.parts import Parts
from stages.models.prunable import Prunable, block_modules
from stages.models.surgery import rebuild
from stages.prune.block.allocation import allocation
from stages.prune.block.costs import costs_of
from stages.prune.block.sequence import cut_modules
from stages.prune.block.task import Task
from stages.prune.block.update import update
from stages.prune.block.widths import check_layout
from stages.prune.params import PruneParams
from stages.prune.ranges import pruned_layers
from stages.prune.sizes import size_metrics


def prune(
    model: PreTrainedModel, windows: torch.Tensor, params: PruneParams
) -> tuple[PreTrainedModel, dict[str, float]]:
    """Return the pruned model, which takes over the weights of `model`, and the metrics of the pruning.

    `windows` are the calibration tokens, shape (count, length); `params` is section `prune` of params.yaml. Step i of n
    brings the removed share to ratio * i / n, with scores from the model as it is by then. Raises UserError for layers
    outside the model and for a ratio or a budget out of reach.
    """
    layers = len(Parts(model).layers)
    attention, mlp = pruned_layers(params, layers)
    check_layout(params, block_modules(model, range(layers), range(layers)), layers)
    before = model.num_parameters()
    original = block_modules(model, attention, mlp)
    costs = costs_of(params, model, original, before)
    costs_before = costs.total  # without the room that an update may need
    if costs.total > costs.limit:
        update(params.chosen.update).prepare(model)
        if model.num_parameters() > before:
            original = block_modules(model, attention, mlp)
            costs = costs_of(params, model, original, before)
    elif params.budget:
        print(f"prune: the model fits prune.budget = {params.budget} as it is; nothing is removed")
    in_pruned_layers = sum(module.units * module.cost for module in original)
    gone = [0] * len(original)
    for step in range(1, params.iterative_steps + 1 if costs.total > costs.limit else 1):
        share = step / params.iterative_steps
        modules = block_modules(model, attention, mlp)
        excess = costs.less(gone) - (costs.total - (costs.total - costs.limit) * share)
        task = Task(model, windows, params, original, modules, params.ratio * share, costs, excess)
        counts = allocation(params.chosen.allocation).counts(task)
        cut_modules(task, counts)
        gone = [sum(each) for each in zip(gone, counts, strict=True)]
    if params.chosen.allocation == "uniform" and not params.joint:
        report_untouched(original, block_modules(model, attention, mlp), params.ratio)
    specified = 1 - model.num_parameters() / before if params.budget else params.ratio
    metrics = size_metrics(model, before, in_pruned_layers, specified)
    if params.budget:
        reached = {"specified": costs.limit, "before": costs_before, "actual": costs.less(gone)}
        metrics |= {f"budget_{name}": cost / costs.scale for name, cost in reached.items()}
    return rebuild(model), metrics


def report_untouched(original: list[Prunable], modules: list[Prunable], ratio: float) -> None:
    """Say where the ratio was too small to remove a single unit."""
    pairs = zip(original, modules, strict=True)
    untouched = dict.fromkeys(f"layer {old.layer} {old.kind}" for old, new in pairs if new.units == old.units)
    if untouched and ratio > 0:
        print(f"prune: prune.ratio = {ratio:g} removes nothing from {', '.join(untouched)}, which have too few units")
