"""Half-open ranges of layers."""

from stages.common.errors import UserError


def layer_range(key: str, bounds: list[int] | None, layers: int) -> range:
    """Return the half-open range `bounds` of a model with `layers` layers; UserError if empty or reaching outside."""
    if bounds is None:
        return range(0)
    start, end = bounds
    if not 0 <= start < end <= layers:
        raise UserError(
            f"{key} = {bounds} is not allowed; allowed: [start, end] with 0 <= start < end <= {layers}, or null"
        )
    return range(start, end)
