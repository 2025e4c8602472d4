"""Updates of structure rank: what the product of the thin matrices aims at. One file each; `prune.update`."""

from stages.prune.aims import AsIs
from stages.prune.choices import load


class RankUpdate(AsIs):
    """The matrices to approximate."""


def update(name: str) -> RankUpdate:
    """Return the update of ranks called `name`."""
    return load(RankUpdate, name, __name__)
