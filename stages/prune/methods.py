"""Methods: presets of the four choices. `prune.method` names one; the other keys override it."""

from typing import NamedTuple


class Method(NamedTuple):
    """What a unit is, what it is worth, how much each layer gives, and what the kept weights do.

    For structure weight also the pattern: which weights compete.
    """

    structure: str
    criterion: str
    allocation: str
    update: str
    pattern: str | None = None


METHODS = {
    "random": Method("block", "random", "uniform", "none"),
    "l1": Method("block", "l1", "uniform", "none"),
    "l2": Method("block", "l2", "uniform", "none"),
    "taylor": Method("block", "taylor", "uniform", "none"),
    "random_free": Method("block", "random", "global", "none"),
    "random_layers": Method("block", "random", "random", "none"),
    "wanda_sp": Method("block", "wanda_sp", "uniform", "none"),
    "flap": Method("block", "flap", "standardised", "bias"),
    "similarity": Method("block", "similarity", "uniform", "none"),
    "activation_norm": Method("block", "activation_norm", "uniform", "none"),
    "activity": Method("block", "activity", "uniform", "none"),
    "taylor_refit": Method("block", "taylor", "uniform", "refit"),
    "taylor_realign": Method("block", "taylor", "uniform", "realign"),
    "obs": Method("block", "obs", "uniform", "refit"),
    "obs_realign": Method("block", "obs", "uniform", "realign"),
    "slimgpt": Method("block", "obs", "logarithmic", "refit"),
    "influence": Method("block", "obs", "influence", "refit"),
    "adapt": Method("block", "taylor", "adaptive", "none"),
    "knapsack": Method("block", "obs", "sensitivity", "refit"),
    "knapsack_realign": Method("block", "obs", "sensitivity", "realign"),
    "best": Method("block", "obs", "channels_first", "realign"),
    "two_stage": Method("block", "obs", "two_stage", "realign"),
    "search": Method("block", "obs", "search", "realign"),
    "magnitude": Method("weight", "magnitude", "uniform", "none", "matrix"),
    "wanda": Method("weight", "wanda", "uniform", "none", "row"),
    "sparsegpt": Method("weight", "obs", "uniform", "obs", "matrix"),
    "sparsegpt_realign": Method("weight", "obs", "uniform", "realign", "matrix"),
    "svd": Method("rank", "svd", "uniform", "none"),
    "svd_llm": Method("rank", "whitened", "uniform", "none"),
    "shortgpt": Method("layer", "influence", "global", "none"),
    "layer_taylor": Method("layer", "taylor", "global", "none"),
    "first_layers": Method("layer", "first", "global", "none"),
    "last_layers": Method("layer", "last", "global", "none"),
    "channel_taylor": Method("channel", "taylor", "uniform", "none"),
    "channel_l2": Method("channel", "l2", "uniform", "none"),
    "channel_norm": Method("channel", "activation_norm", "uniform", "none"),
    "channel_random": Method("channel", "random", "uniform", "none"),
    "channel_pca": Method("channel", "pca", "uniform", "none"),
    "channel_realign": Method("channel", "pca", "uniform", "realign"),
    "reap": Method("expert", "reap", "uniform", "none"),
    "expert_frequency": Method("expert", "frequency", "uniform", "none"),
    "expert_taylor": Method("expert", "taylor", "uniform", "none"),
    "expert_l2": Method("expert", "l2", "uniform", "none"),
    "expert_random": Method("expert", "random", "uniform", "none"),
}
