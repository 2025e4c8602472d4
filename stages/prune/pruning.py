"""Prune a model in memory, by the structure that the params choose."""

from collections.abc import Callable

import torch
from transformers import PreTrainedModel

from stages.common.errors import UserError
from stages.models.parts import Parts
from stages.prune.block import pruning as block
from stages.prune.channel import pruning as channel
from stages.prune.expert import pruning as expert
from stages.prune.families import check_family
from stages.prune.layer import pruning as layer
from stages.prune.params import PruneParams
from stages.prune.rank import pruning as rank
from stages.prune.weight import pruning as weight

Prune = Callable[[PreTrainedModel, torch.Tensor, PruneParams], tuple[PreTrainedModel, dict[str, float]]]
ROOMS: dict[str, Prune] = {
    "block": block.prune,
    "channel": channel.prune,
    "expert": expert.prune,
    "layer": layer.prune,
    "rank": rank.prune,
    "weight": weight.prune,
}


def prune(
    model: PreTrainedModel, windows: torch.Tensor, params: PruneParams
) -> tuple[PreTrainedModel, dict[str, float]]:
    """Return the pruned model, which takes over the weights of `model`, and the metrics of the pruning.

    `windows` are the calibration tokens, shape (count, length). Raises UserError where `params` do not fit `model`.
    """
    check_family(params, model.config.model_type)
    check_whole(model)
    params, active = params.with_ranges(len(Parts(model).layers)), active_parameters(model)
    pruned, metrics = ROOMS[params.chosen.structure](model, windows, params)
    if Parts(pruned).has_experts:
        metrics |= {"active_parameters_before": active, "active_parameters": active_parameters(pruned)}
    return pruned, metrics


def check_whole(model: PreTrainedModel) -> None:
    """Raise UserError for a model with matrices of low rank: every structure takes whole ones."""
    if getattr(model.config, "ranks", None):
        raise UserError(
            f"{model.config.name_or_path} has matrices of low rank (ranks in its config.json), which cannot be "
            "pruned again; expected whole matrices: prune by the other structures first, then by structure = rank"
        )


def active_parameters(model: PreTrainedModel) -> int:
    """Return the parameters that one token passes: all but those of experts that the router does not choose."""
    return model.num_parameters() - Parts(model).idle_parameters
