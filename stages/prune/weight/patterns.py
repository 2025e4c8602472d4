"""Patterns of structure weight: which weights of a matrix compete. The values of `prune.pattern`.

row     the weights of one output, as in Wanda (Sun et al. 2024)
matrix  all of a matrix
n:m     every m neighbouring inputs of one output, of which n stay, such as 2:4 (Mishra et al. 2021)
"""

import re

EXPECTED = "row, matrix, or n:m with 0 < n < m, such as 2:4"


def n_of_m(pattern: str) -> tuple[int, int] | None:
    """Return n and m of a pattern n:m, None of another."""
    found = re.fullmatch(r"(\d+):(\d+)", pattern)
    return (int(found[1]), int(found[2])) if found else None


def group_size(pattern: str) -> int:
    """Return how many neighbouring inputs a matrix must have a multiple of: m of n:m, else 1."""
    sparse = n_of_m(pattern)
    return sparse[1] if sparse else 1


def check_pattern(pattern: str) -> str:
    """Return `pattern`; ValueError if it is none."""
    sparse = n_of_m(pattern)
    if pattern not in ("row", "matrix") and not (sparse and 0 < sparse[0] < sparse[1]):
        raise ValueError(f"is not allowed; expected {EXPECTED}")
    return pattern
