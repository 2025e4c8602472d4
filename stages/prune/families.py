"""What an architecture does not allow. No torch: params are checked without it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stages.common.errors import UserError
from stages.models.families import FAMILIES, PRUNED

if TYPE_CHECKING:
    from stages.prune.params import PruneParams


def check_family(params: PruneParams, model_type: str) -> None:
    """Raise UserError where a model of this `model_type`, one of FAMILIES or its pruned class, cannot be pruned so."""
    family, chosen = FAMILIES[model_type.removeprefix(PRUNED)], params.chosen
    if chosen.structure == "channel" and family.norm.centred:
        raise UserError(
            f"prune.structure = channel is not allowed for model_type = {model_type!r}, whose norms subtract the mean "
            "over all channels; expected one of: block, layer, weight"
        )
    if chosen.update == "realign" and (family.attention.after or family.mlp.after):
        raise UserError(
            f"prune.update = realign is not allowed for model_type = {model_type!r}, which has norms between the "
            "output matrices and the residual stream; expected one of: none, bias, refit"
        )
