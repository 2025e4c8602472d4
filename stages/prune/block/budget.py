"""`prune.budget`: a limit on the cost of the pruned model, instead of a ratio.

1 GiB      memory: the weights, and the keys and values of one sequence of `prune.budget_length` tokens
500 MMACs  multiply-accumulates of one such sequence without a cache, every pair of positions counted
12 ms      time to decode a token after such a sequence, measured on the machine that prunes
"""

UNITS = {  # how many bytes, MACs or nanoseconds it is, and what it measures (costs.MEASURES)
    "MiB": (2**20, "memory"),
    "GiB": (2**30, "memory"),
    "MMACs": (10**6, "macs"),
    "GMACs": (10**9, "macs"),
    "ms": (10**6, "latency"),
}


def parse(text: str) -> tuple[float, str]:
    """Return the amount and the unit of a budget; ValueError if `text` is not one."""
    amount, _, unit = text.partition(" ")
    try:
        value = float(amount)
    except ValueError:
        value = 0.0
    if unit not in UNITS or not 0 < value < float("inf"):
        raise ValueError(f"is not allowed; expected null, or a number above 0 and one of {', '.join(UNITS)}: 12 ms")
    return value, unit


def measure(text: str) -> str:
    """Return what a budget limits: memory, macs or latency."""
    return UNITS[parse(text)[1]][1]


def checked(text: str) -> str:
    """Return `text` if it is a budget; ValueError if it is not."""
    parse(text)
    return text
