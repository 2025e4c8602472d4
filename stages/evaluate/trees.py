"""Prefix trees of token sequences, each laid out as one row that a causal model encodes in one pass.

Sequences with the same beginning share it: a tree's nodes are tokens, in depth-first order, so that a node's
descendants are the nodes right after it. A node sees itself and its ancestors; its position is its depth. So several
short trees fit in one row without seeing each other.
"""

from bisect import bisect_right
from dataclasses import dataclass, field

import torch

OPEN = 2**31 - 1  # the end of a node on the path that the tree still grows at: all nodes behind it descend from it


@dataclass
class Tree:
    """A row under construction: per node its token, its depth and the index one past its last descendant."""

    tokens: list[int] = field(default_factory=list)
    depths: list[int] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)
    path: list[int] = field(default_factory=list)  # nodes of the sequence added last
    leaves: list[tuple[int, list[int]]] = field(default_factory=list)  # (sequence, its nodes that are asked for)

    def __len__(self) -> int:
        """Return how many nodes there are."""
        return len(self.tokens)

    def shared(self, sequence: list[int]) -> int:
        """Return how many tokens `sequence` begins with as the sequence added last does."""
        count = 0
        for node, token in zip(self.path, sequence, strict=False):
            if self.tokens[node] != token:
                break
            count += 1
        return count

    def add(self, sequence: list[int], shared: int) -> None:
        """Add the nodes after the first `shared` tokens of `sequence`."""
        for node in self.path[shared:]:
            self.ends[node] = len(self)
        new = range(len(self), len(self) + len(sequence) - shared)
        self.tokens += sequence[shared:]
        self.depths += range(shared, len(sequence))
        self.ends += [OPEN] * len(new)
        self.path = self.path[:shared] + list(new)

    def set_beside(self, other: "Tree") -> None:
        """Add the nodes of a grown tree that shares nothing with this one."""
        start = len(self)
        self.tokens += other.tokens
        self.depths += other.depths
        self.ends += [start + min(end, len(other)) for end in other.ends]
        self.leaves += [(sequence, [start + node for node in nodes]) for sequence, nodes in other.leaves]


def plant(sequences: list[list[int]], asked: list[int], budget: int) -> list[Tree]:
    """Return trees that hold all sequences, and in `leaves` the nodes of the last `asked[i]` tokens of sequence i.

    In sorted order neighbours share the most. A sequence joins its predecessor's tree if at least a quarter of it is
    there already (below that the longer row costs more attention than the sharing saves) and the tree stays within
    `budget` tokens.
    """
    trees: list[Tree] = []
    for index in sorted(range(len(sequences)), key=sequences.__getitem__):
        sequence = sequences[index]
        shared = trees[-1].shared(sequence) if trees else 0
        if not trees or 4 * shared < len(sequence) or len(trees[-1]) + len(sequence) - shared > budget:
            trees.append(Tree())
            shared = 0
        trees[-1].add(sequence, shared)
        trees[-1].leaves.append((index, trees[-1].path[-asked[index] :]))
    return trees


def batches(trees: list[Tree], budget: int) -> list[list[Tree]]:
    """Return the trees side by side in rows, and the rows in batches of at most `budget` tokens with padding.

    A batch is as wide as its first row, the longest tree that is left; a longer tree than `budget` is one by itself.
    Few large products are faster than many small ones, but no tree stands in a row more than four times its length,
    where attention to what it does not see would take as long as what it needs.
    """
    left, result = sorted(trees, key=len), []
    while left:
        width = len(left[-1])
        rows = [fill_row(left, width)]
        while left and 4 * len(left[-1]) >= width and (len(rows) + 1) * width <= budget:
            rows.append(fill_row(left, width))
        result.append(rows)
    return result


def fill_row(left: list[Tree], width: int) -> Tree:
    """Take trees from `left`, which ascends by length, into a row: each time the longest that it still has room for."""
    row = Tree()
    while (fitting := bisect_right(left, width - len(row), key=len)) and 4 * len(left[fitting - 1]) >= width:
        row.set_beside(left.pop(fitting - 1))
    return row


def stack(rows: list[Tree]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return (tokens, depths, visible) of a batch whose first row is its longest.

    tokens, depths: int64, shape (rows, width), padded right with 0. visible: bool, shape (rows, width, width), true
    where the node of the row sees the node of the column.
    """
    width = len(rows[0])
    padded = [
        [values + [fill] * (width - len(row)) for values, fill in ((row.tokens, 0), (row.depths, 0), (row.ends, OPEN))]
        for row in rows
    ]
    tokens, depths, ends = torch.tensor(padded, dtype=torch.int64).unbind(1)
    order = torch.arange(width)
    return tokens, depths, (order <= order[:, None]) & (order[:, None] < ends[:, None, :])
