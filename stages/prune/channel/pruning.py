"""Channel: the hidden size. Removes the least important channels of the residual stream from the whole model.

One set for all layers, since every layer adds to the same stream (as Minitron, Muralidharan et al. 2024, cuts it).
head_dim stays, so heads stay as they are; widths stay alike in all layers. Removing channels equals setting them to
zero in every matrix that writes to the stream and in the embeddings (keep_channels). Criterion pca rotates the stream
first, and update realign solves for the matrices (projection.py).
"""

import torch
from transformers import PreTrainedModel

from stages.common.errors import UserError
from stages.models.parts import Parts
from stages.models.prunable import Prunable
from stages.models.surgery import rebuild
from stages.prune.channel import DIRECTIONS, criteria
from stages.prune.channel.criteria import DirectionCriterion
from stages.prune.channel.stream import keep_channels, readings, stream
from stages.prune.channel.update import channel_update
from stages.prune.choices import load
from stages.prune.criteria import MomentCriterion, combined, criterion, score_units
from stages.prune.params import PruneParams
from stages.prune.sizes import size_metrics
from stages.prune.units import share_of_units, strongest


def prune(
    model: PreTrainedModel, windows: torch.Tensor, params: PruneParams
) -> tuple[PreTrainedModel, dict[str, float]]:
    """Return the model of fewer channels, which takes over the weights of `model`, and the metrics of the pruning.

    `windows` are the calibration tokens, shape (count, length); `params` is section `prune` of params.yaml. Step i of n
    brings the removed share to ratio * i / n, with scores from the model as it is by then. Raises UserError for a ratio
    that is out of reach.
    """
    before, original = model.num_parameters(), stream(model)
    for step in range(1, params.iterative_steps + 1 if params.ratio else 1):
        left = channels_left(original, before, params.ratio * (step / params.iterative_steps), params)
        if left < Parts(model).width:
            cut(model, left, windows, params)
    return rebuild(model), {
        **size_metrics(model, before, original.units * original.cost, params.ratio),
        "hidden_size_before": original.units,
        "hidden_size": model.config.hidden_size,
    }


def cut(model: PreTrainedModel, left: int, windows: torch.Tensor, params: PruneParams) -> None:
    """Cut the stream of `model` to `left` channels, in place."""
    chosen = params.chosen
    if chosen.criterion in DIRECTIONS:
        directions = load(DirectionCriterion, chosen.criterion, criteria.__name__)
        channel_update(chosen.update).project(model, directions.basis(model, windows, left), windows)
        return
    module = stream(model)
    keep = strongest(scores(model, module, windows, params), module.units - left)
    if chosen.update == "none":
        keep_channels(model, keep)
    else:
        basis = torch.eye(module.units, dtype=torch.float64, device=model.device)[:, keep.to(model.device)]
        channel_update(chosen.update).project(model, basis, windows)


def channels_left(original: Prunable, parameters: int, ratio: float, params: PruneParams) -> int:
    """Return how many channels stay at `ratio`, a multiple of `round_to`; UserError if the ratio is out of reach."""
    if params.ratio_of == "groups":
        wanted: float = original.units - share_of_units([original], ratio)
    else:
        wanted = original.units - parameters * ratio / original.cost
    left = round(wanted / params.round_to) * params.round_to
    if not 1 <= left <= original.units:
        raise UserError(
            f"prune.ratio = {params.ratio:g} with prune.round_to = {params.round_to} would leave {left} of the "
            f"{original.units} channels; expected values that leave 1 to {original.units}"
        )
    return left


def scores(model: PreTrainedModel, module: Prunable, windows: torch.Tensor, params: PruneParams) -> torch.Tensor:
    """Return one float64 score per channel, shape (hidden,).

    `prune.grouping` combines the matrices that a channel crosses; for a criterion of activations, what is read of the
    stream at each place, scored with all matrices that read there.
    """
    by = criterion(params.chosen.criterion)
    if not isinstance(by, MomentCriterion):
        return score_units(params.chosen.criterion, model, [module], windows, params)[0]
    rows = [by.score_moments(*output, module.units) for output in readings(model, windows)]
    return combined(torch.cat(rows), params)
