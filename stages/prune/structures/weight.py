"""Weight: single weights become zero, by row, by matrix or n of every m. Shapes stay, and so do MACs and memory.

The matrices go one after another, each by what it reads in the model as pruned so far; those that read the same (q, k
and v; gate and up) share its statistics, which are all that is held beside the windows' hidden states.
"""

from collections.abc import Callable

import torch
from transformers import PreTrainedModel

from stages.common.errors import UserError
from stages.common.paging import bring_in, each_in_memory
from stages.common.progress import progress
from stages.prune import criteria, update
from stages.prune.activations import Activations
from stages.prune.inputs import Inputs
from stages.prune.masks import Choose, Quota, lowest
from stages.prune.patterns import group_size, n_of_m
from stages.prune.readers import Readers, all_readers
from stages.prune.sizes import nonzero_in_model


def prune(model: PreTrainedModel, windows: torch.Tensor, params) -> tuple[PreTrainedModel, dict[str, float]]:
    """Return `model` with weights set to zero in place, and the metrics of the pruning.

    `windows` are the calibration tokens, shape (count, length); `params` is section `prune` of params.yaml. All
    matrices together meet the ratio to within one weight. Raises UserError for layers outside the model, a ratio out of
    reach, and a pattern n:m whose m does not divide a matrix's inputs.
    """
    chosen, every = params.chosen, list(all_readers(model, params))
    check_pattern(chosen.pattern, every)
    matrices = [linear for each in every for linear in each.matrices.values()]
    prunable, parameters = sum(linear.weight.numel() for linear in matrices), model.num_parameters()
    share = share_of_weights(params, parameters, prunable)
    if share:
        set_to_zero(model, windows, chosen, share, every)
    matrices_left = (linear for each in each_in_memory(model, every) for linear in each.matrices.values())
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
def set_to_zero(model: PreTrainedModel, windows: torch.Tensor, chosen, share: float, every: list[Readers]) -> None:
    """Set `share` of the weights of all matrices to zero, by the criterion and the update that are `chosen`."""
    criterion, then = criteria.load(f"weight.{chosen.criterion}"), update.load(f"weight.{chosen.update}")
    # Where nothing looks at the windows, they need not pass the model.
    activations = Activations(model, windows) if criterion.READS or then.READS else None
    quota = Quota(share)
    for readers in progress(every, "pruning"):
        inputs = activations.inputs(readers) if activations else None
        bring_in(model.model.layers[readers.layer])
        choose = chooser(criterion.score, inputs, chosen.pattern, quota)
        for linear in readers.matrices.values():
            linear.weight.copy_(then.remove(linear.weight.double(), choose, group_size(chosen.pattern), inputs))


def chooser(score: Callable[..., torch.Tensor], inputs: Inputs | None, pattern: str, quota: Quota) -> Choose:
    """Return the function that an update asks which weights of some columns go."""
    return lambda part, columns: lowest(score(part, inputs, columns), pattern, quota)


def share_of_weights(params, parameters: int, prunable: int) -> float:
    """Return the share of the matrices' weights that the ratio asks for; UserError if that is all of them or more."""
    sparse = n_of_m(params.chosen.pattern)
    if sparse:
        return 1 - sparse[0] / sparse[1]
    if params.ratio_of == "groups":
        return params.ratio
    share = params.ratio * parameters / prunable
    if share >= 1:
        raise UserError(
            f"prune.ratio = {params.ratio:g} asks for {params.ratio * parameters:,.0f} zeros, but the pruned matrices "
            f"have {prunable:,} weights; allowed: a smaller ratio or more layers"
        )
    return share


def check_pattern(pattern: str, every: list[Readers]) -> None:
    """Raise UserError where a matrix's inputs are no multiple of the m of a pattern n:m."""
    for readers in every:
        if readers.output.in_features % group_size(pattern):
            raise UserError(
                f"prune.pattern = {pattern!r} is not allowed for {readers.name}, which read "
                f"{readers.output.in_features} inputs; allowed: an m that divides them"
            )
