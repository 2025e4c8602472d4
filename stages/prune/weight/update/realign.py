"""Realign: OBS from matrices that undo the drift of the residual stream, as of structures block and rank.

Each matrix is read in the model as pruned so far, and becomes the least-squares solution of GPTAQ (Li et al. 2025) and
QEP (Arai & Ichikawa 2025) before the first weight goes: its output the dense model's, its inputs the drifted ones. The
sweep of `obs` then removes what is worth least for that, and the columns after it make up for it.
"""

from stages.prune.aims import TowardsDense
from stages.prune.weight.update.obs import Obs


class Realign(TowardsDense, Obs):
    reads_dense_layers = False
