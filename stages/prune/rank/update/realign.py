"""Realign: the product aims at what undoes the drift of the residual stream, as of structure block.

Of all matrices of a rank, the best for least squares towards any target is the truncated SVD, in the metric of the
inputs, of the solution without a limit (reduced-rank regression, Izenman 1975). So the matrices of low rank approximate
the solution of GPTAQ (Li et al. 2025) and QEP (Arai & Ichikawa 2025), and matrices that stay whole become it.
"""

from stages.prune.aims import TowardsDense
from stages.prune.rank.update import RankUpdate


class Realign(TowardsDense, RankUpdate):
    """The least-squares solutions."""
