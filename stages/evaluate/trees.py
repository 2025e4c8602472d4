"""Prefix trees of token sequences, each laid out as one row that a causal model encodes in one pass.

Sequences that begin alike share their beginning: a tree's nodes are tokens, in depth-first order, so that a node's
descendants are the nodes right behind it. A node sees itself and its ancestors; its position is its depth.
"""

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

    def shared(self, sequence: list[int]) -> int:
        """Return how many tokens `sequence` begins with as the sequence added last does."""
        count = 0
        for node, token in zip(self.path, sequence, strict=False):
            if self.tokens[node] != token:
                break
            count += 1
        return count

    def add(self, sequence: list[int], shared: int) -> None:
        """Add the nodes behind the first `shared` tokens of `sequence`."""
        for node in self.path[shared:]:
            self.ends[node] = len(self.tokens)
        new = range(len(self.tokens), len(self.tokens) + len(sequence) - shared)
        self.tokens += sequence[shared:]
        self.depths += range(shared, len(sequence))
        self.ends += [OPEN] * len(new)
        self.path = self.path[:shared] + list(new)


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
        if not trees or 4 * shared < len(sequence) or len(trees[-1].tokens) + len(sequence) - shared > budget:
            trees.append(Tree())
            shared = 0
        trees[-1].add(sequence, shared)
        trees[-1].leaves.append((index, trees[-1].path[-asked[index] :]))
    return trees


def batches(trees: list[Tree], budget: int) -> list[list[Tree]]:
    """Return the trees in batches of at most `budget` tokens with padding (or of one tree), longest first.

    No row is padded by more than a quarter: where trees are few, one batch of them all would be mostly padding.
    """
    result: list[list[Tree]] = []
    for tree in sorted(trees, key=lambda tree: -len(tree.tokens)):
        width = len(result[-1][0].tokens) if result else 0
        if not result or (len(result[-1]) + 1) * width > budget or 4 * len(tree.tokens) < 3 * width:
            result.append([])
        result[-1].append(tree)
    return result


def stack(trees: list[Tree]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return (tokens, depths, visible) of a batch whose first tree is its longest.

    tokens, depths: int64, shape (trees, width), padded behind with 0. visible: bool, shape (trees, width, width), true
    where the node of the row sees the node of the column.
    """
    width = len(trees[0].tokens)
    padded = [
        [values + [0] * (width - len(values)) for values in (tree.tokens, tree.depths, tree.ends)] for tree in trees
    ]
    tokens, depths, ends = torch.tensor(padded, dtype=torch.int64).unbind(1)
    order = torch.arange(width)
    return tokens, depths, (order <= order[:, None]) & (order[:, None] < ends[:, None, :])
