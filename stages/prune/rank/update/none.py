"""None: each matrix is approximated as it is."""

from stages.prune.rank.update import RankUpdate


class NoUpdate(RankUpdate):
    """The matrices themselves."""
