"""Prefix trees hold exactly the sequences that were put in, and every node sees exactly its own sequence."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.evaluate.trees import batches, plant, stack

SEQUENCES = st.lists(st.lists(st.integers(1, 3), min_size=1, max_size=12), min_size=1, max_size=30)


@settings(deadline=None)
@given(SEQUENCES, st.integers(1, 40), st.data())
def test_every_node_sees_its_own_sequence(sequences, budget, data):
    asked = [data.draw(st.integers(1, len(sequence))) for sequence in sequences]
    found = []
    for batch in batches(plant(sequences, asked, budget), budget):
        tokens, depths, visible = stack(batch)
        assert visible.any(-1).all(), "a row of attention that sees nothing gives NaN"
        for row, tree in enumerate(batch):
            for index, nodes in tree.leaves:
                found.append(index)
                sequence = sequences[index]
                seen = visible[row, nodes[-1]].nonzero().flatten()
                assert tokens[row, seen].tolist() == sequence
                assert depths[row, seen].tolist() == list(range(len(sequence)))
                assert nodes == seen[-asked[index] :].tolist()
                for depth, node in enumerate(seen.tolist()):
                    assert torch.equal(visible[row, node].nonzero().flatten(), seen[: depth + 1])
    assert sorted(found) == list(range(len(sequences)))


@settings(deadline=None)
@given(SEQUENCES, st.integers(1, 40))
def test_batches_stay_within_the_budget(sequences, budget):
    trees = plant(sequences, [1] * len(sequences), budget)
    assert all(len(tree) <= max(budget, *map(len, sequences)) for tree in trees)
    for batch in batches(trees, budget):
        assert len(batch[0]) == max(map(len, batch))
        assert len(batch) == 1 or len(batch) * len(batch[0]) <= budget


def test_trees_stand_side_by_side_in_rows_of_up_to_four_times_their_length():
    lengths = [40, 25, 15, 10, 10, 10, 10, 9, 8]
    trees = plant([[first, *range(100, 99 + length)] for first, length in enumerate(lengths)], [1] * 9, 200)
    widths = [[len(row) for row in batch] for batch in batches(trees, 200)]
    assert widths == [[40, 40, 40], [9, 8]]


def test_a_context_is_held_once():
    context = list(range(50, 80))
    trees = plant([[*context, 1, 2], context, [*context, 1, 3], [*context, 4]], [1, 1, 2, 1], 100)
    assert len(trees) == 1
    assert sorted(trees[0].tokens) == sorted([*context, 1, 2, 3, 4])


def test_sequences_with_little_in_common_are_apart():
    trees = plant([[1, *range(10, 20)], [1, *range(30, 40)]], [1, 1], 100)
    assert [len(tree.tokens) for tree in trees] == [11, 11]
