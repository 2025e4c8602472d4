"""Half-open ranges of layers: which layers are pruned."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stages.common.errors import UserError

if TYPE_CHECKING:
    from stages.prune.params import PruneParams

EDGE = 15  # auto leaves out one layer in so many at each end; docs/methods-measured.md has the measurements


def auto_range(layers: int) -> list[int]:
    """Return the range that `auto` stands for in a model with `layers` layers: all but the first and the last ones.

    At each end a fifteenth of the layers stays whole, and one at least where the model has three or more.
    """
    edge = max(1, round(layers / EDGE)) if layers > 2 else 0
    return [edge, layers - edge]


def layer_range(key: str, bounds: list[int] | None, layers: int) -> range:
    """Return the half-open range `bounds` of a model with `layers` layers; UserError if empty or reaching outside."""
    if bounds is None:
        return range(0)
    start, end = bounds
    if not 0 <= start < end <= layers:
        raise UserError(
            f"{key} = {bounds} is not allowed; expected [start, end] with 0 <= start < end <= {layers}, or null"
        )
    return range(start, end)


def pruned_layers(params: PruneParams, layers: int) -> tuple[range, range]:
    """Return the layers whose attention is pruned and those whose MLP is, in a model with `layers` layers.

    Raises UserError for a range that is empty or reaches outside.
    """
    params = params.with_ranges(layers)
    attention, mlp = params.attention_layers, params.mlp_layers
    assert attention != "auto" and mlp != "auto", "they are ranges by now"
    return (
        layer_range("prune.attention_layers", attention, layers),
        layer_range("prune.mlp_layers", mlp, layers),
    )
