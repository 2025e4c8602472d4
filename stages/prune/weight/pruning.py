"""Weight: set single weights to zero, by row, by matrix or n of every m. Shapes, MACs and memory do not change.

The matrices are pruned one after another, each with its inputs in the model as pruned so far, or, as an update may ask,
in the layers before as pruned so far and its own dense. Matrices with the same inputs (q, k and v; gate and up) share
their statistics. Memory holds these and the windows' hidden states.
"""

import torch
from transformers import PreTrainedModel

from stages.common.errors import UserError
from stages.common.progress import progress
from stages.models.paging import bring_in, each_in_memory
from stages.models.parts import Parts
from stages.prune.activations import Activations
from stages.prune.groups import InputGroup, input_groups
from stages.prune.inputs import Inputs
from stages.prune.methods import Method
from stages.prune.params import PruneParams
from stages.prune.sizes import nonzero_in_model
from stages.prune.weight.criteria import SingleWeightCriterion, criterion
from stages.prune.weight.masks import Choose, Quota, lowest
from stages.prune.weight.patterns import group_size, n_of_m
from stages.prune.weight.update import update


def prune(
    model: PreTrainedModel, windows: torch.Tensor, params: PruneParams
) -> tuple[PreTrainedModel, dict[str, float]]:
    """Return `model` with weights set to zero in place, and the metrics of the pruning.

    `windows` are the calibration tokens, shape (count, length); `params` is section `prune` of params.yaml. All
    matrices together meet the ratio to within one weight. Raises UserError for layers outside the model, a ratio out of
    reach, and a pattern n:m whose m does not divide a matrix's inputs.
    """
    groups, pattern = list(input_groups(model, params)), params.chosen.pattern
    assert pattern is not None, "params are checked for one"
    check_pattern(pattern, groups)
    matrices = [linear for group in groups for linear in group.matrices.values()]
    prunable, parameters = sum(linear.weight.numel() for linear in matrices), model.num_parameters()
    share = share_of_weights(params, pattern, parameters, prunable)
    if share:
        set_to_zero(model, windows, params.chosen, pattern, share, groups)
    matrices_left = (linear for group in each_in_memory(model, groups) for linear in group.matrices.values())
    zeros = sum(int((linear.weight == 0).sum()) for linear in matrices_left)
    return model, {
        "parameters_before": parameters,
        "parameters": parameters,
        "parameters_kept": 1.0,
        "parameters_nonzero": nonzero_in_model(model),
        "ratio_specified": params.ratio,
        "ratio_actual": zeros / parameters,
        "ratio_in_pruned_layers": zeros / prunable,
    }


@torch.no_grad()
def set_to_zero(
    model: PreTrainedModel, windows: torch.Tensor, chosen: Method, pattern: str, share: float, groups: list[InputGroup]
) -> None:
    """Set `share` of the weights of all matrices to zero, by the criterion and the update that are `chosen`."""
    by, then = criterion(chosen.criterion), update(chosen.update)
    # Where nothing looks at the windows, they need not pass the model.
    needs = {by.needs, then.needs} - {"nothing"}
    activations = Activations(model, windows, with_targets=then.needs_targets) if needs else None
    quota, read = Quota(share), dict[str, Inputs]()
    for group in progress(groups, "pruning"):
        if activations and then.reads_dense_layers and group.name not in read:
            layer = [each for each in groups if each.layer == group.layer]
            read = dict(zip((each.name for each in layer), activations.ahead(layer, needs), strict=True))
        inputs = read.pop(group.name, None) or (activations.inputs(group) if activations else None)
        bring_in(Parts(model).layers[group.layer])
        choose = chooser(by, inputs, pattern, quota)
        for name, aim in then.aims(group, inputs):
            group.matrices[name].weight.copy_(then.remove(aim, choose, group_size(pattern), inputs))
        del inputs, choose  # the next layer's statistics are not held beside them
    if activations:
        then.finish(activations)


def chooser(by: SingleWeightCriterion, inputs: Inputs | None, pattern: str, quota: Quota) -> Choose:
    """Return the function that an update asks which weights of some columns go."""
    return lambda part, columns: lowest(by.score(part, inputs, columns), pattern, quota)


def share_of_weights(params: PruneParams, pattern: str, parameters: int, prunable: int) -> float:
    """Return the share of the matrices' weights that the ratio asks for; UserError if that is all of them or more."""
    sparse = n_of_m(pattern)
    if sparse:
        return 1 - sparse[0] / sparse[1]
    if params.ratio_of == "groups":
        return params.ratio
    share = params.ratio * parameters / prunable
    if share >= 1:
        raise UserError(
            f"prune.ratio = {params.ratio:g} asks for {params.ratio * parameters:,.0f} zeros, but the pruned matrices "
            f"have {prunable:,} weights; lower the ratio or prune more layers"
        )
    return share


def check_pattern(pattern: str, groups: list[InputGroup]) -> None:
    """Raise UserError where a matrix's inputs are no multiple of the m of a pattern n:m."""
    for group in groups:
        if group.output.in_features % group_size(pattern):
            raise UserError(
                f"prune.pattern = {pattern!r} is not allowed for {group.name}, which read "
                f"{group.output.in_features} inputs; expected an m that divides them"
            )
