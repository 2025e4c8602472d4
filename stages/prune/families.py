"""What an architecture does not allow. No torch: params are checked without it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stages.common.errors import UserError
from stages.models.architecture import Architecture, Experts
from stages.models.families import FAMILIES, PRUNED
from stages.prune.block import REMOVE_WHOLE
from stages.prune.channel import CHANNEL
from stages.prune.structures import STRUCTURES

if TYPE_CHECKING:
    from stages.prune.params import PruneParams


def check_family(params: PruneParams, model_type: str) -> None:
    """Raise UserError where a model of this `model_type`, one of FAMILIES or its pruned class, cannot be pruned so."""
    family, chosen = FAMILIES[model_type.removeprefix(PRUNED)], params.chosen
    if chosen.allocation in REMOVE_WHOLE and family.parallel:
        raise UserError(
            f"prune.allocation = {chosen.allocation} is not allowed for model_type = {model_type!r}, whose attention "
            "and MLP read the same; expected another allocation, such as channels_first"
        )
    if isinstance(family.mlp, Experts):
        check_mixture(params, model_type)
        return
    if chosen.structure == "expert":
        raise UserError(
            f"prune.structure = expert is not allowed for model_type = {model_type!r}, which has no experts; expected "
            f"one of: block, channel, layer, rank, weight; or a base of one of: {', '.join(mixtures())}"
        )
    if chosen.structure == "channel" and family.norm.centred:
        raise UserError(
            f"prune.structure = channel is not allowed for model_type = {model_type!r}, whose norms subtract the mean "
            "over all channels; expected one of: block, layer, rank, weight"
        )
    if has_norms_after(family):
        beside = (
            f"is not allowed for model_type = {model_type!r}, which has norms between the output matrices and the "
            "residual stream"
        )
        if chosen.criterion == "pca":
            expected = [name for name in CHANNEL.takes["criterion"] if name != "pca"]
            raise UserError(f"prune.criterion = pca {beside}; expected one of: {', '.join(expected)}")
        if chosen.allocation == "sublayers":  # a norm hides from the gradients before it that all of its input is gone
            raise UserError(f"prune.allocation = sublayers {beside}; expected another allocation, such as two_stage")
        if chosen.update == "realign":
            expected = [name for name in STRUCTURES[chosen.structure].takes["update"] if name != "realign"]
            raise UserError(f"prune.update = realign {beside}; expected one of: {', '.join(expected)}")


def check_mixture(params: PruneParams, model_type: str) -> None:
    """Raise UserError where a mixture of experts cannot be pruned so."""
    chosen = params.chosen
    beside = f"for model_type = {model_type!r}, whose MLPs are mixtures of experts"
    if chosen.structure == "channel":
        raise UserError(
            f"prune.structure = channel is not allowed {beside}; expected one of: block, expert, layer, rank, weight"
        )
    if chosen.structure == "layer" and chosen.criterion == "taylor":
        raise UserError(
            f"prune.criterion = taylor of layers is not allowed {beside}; expected one of: first, influence, last"
        )
    fixed = FAMILIES[model_type.removeprefix(PRUNED)].fixed_heads
    structure = f"prune.structure = {chosen.structure}"
    if chosen.structure == "block" and fixed and params.attention_layers is not None:
        raise UserError(
            f"prune.attention_layers = {params.attention_layers} with {structure} is not allowed {beside}, with norms "
            "as wide as all heads; expected null: the experts' channels alone"
        )
    if chosen.structure in ("rank", "weight") and params.mlp_layers is not None:
        found = f"prune.mlp_layers = {params.mlp_layers} with {structure}"
        raise UserError(f"{found} is not allowed {beside}; expected null: the attention alone")
    if chosen.update == "bias":
        raise UserError(f"prune.update = bias is not allowed {beside}; expected one of: none, realign, refit")
    if chosen.update == "realign" and params.mlp_layers is not None:
        raise UserError(
            f"prune.update = realign with prune.mlp_layers = {params.mlp_layers} is not allowed {beside}, of which "
            "several put out a token's result together; expected one of: none, refit; or mlp_layers = null"
        )


def has_norms_after(family: Architecture) -> bool:
    """Return whether there are norms between the output matrices and the residual stream."""
    mlp = family.mlp
    return bool(family.attention.after or (not isinstance(mlp, Experts) and mlp.after))


def mixtures() -> list[str]:
    """Return the families whose MLPs are mixtures of experts."""
    return [name for name, family in FAMILIES.items() if isinstance(family.mlp, Experts)]
