import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from stages.tune.batches import Batches, collate
from stages.tune.examples import IGNORE, Example


def padding(lengths: list[int], batches: list[list[int]]) -> float:
    cells = sum(len(batch) * max(lengths[index] for index in batch) for batch in batches)
    return 1 - sum(lengths[index] for batch in batches for index in batch) / cells


@given(st.lists(st.integers(1, 50), min_size=1, max_size=400), st.integers(1, 6), st.integers(0, 2**31 - 1), st.data())
def test_an_epoch_takes_every_example_once_but_less_than_one_batch(lengths, batch_size, seed, data):
    batch_size = min(batch_size, len(lengths))
    batches = Batches(lengths, batch_size, seed)
    epoch = data.draw(st.integers(0, 5))
    steps = range(epoch * batches.per_epoch, (epoch + 1) * batches.per_epoch)
    taken = [batches.at(step) for step in steps]
    assert all(len(batch) == batch_size for batch in taken)
    indices = [index for batch in taken for index in batch]
    assert len(indices) == len(set(indices)) > len(lengths) - batch_size
    assert all([lengths[index] for index in batch] == sorted(lengths[index] for index in batch) for batch in taken)


@given(st.lists(st.integers(0, 40), min_size=1, max_size=20))
def test_a_batch_depends_on_seed_and_step_alone_and_not_on_what_was_asked_before(steps):
    lengths = [5, 9, 1, 3, 7, 2, 8, 6, 4]
    asked = Batches(lengths, 2, seed=3)
    assert [asked.at(step) for step in steps] == [Batches(lengths, 2, seed=3).at(step) for step in steps]


def test_epochs_and_seeds_differ():
    def epoch(seed: int, number: int) -> list[list[int]]:
        return [Batches([1] * 40, 4, seed).at(step) for step in range(number * 10, number * 10 + 10)]

    assert epoch(0, 0) != epoch(0, 1)
    assert epoch(0, 0) != epoch(1, 0)


def test_little_is_padding_and_short_batches_come_at_any_time():
    lengths = np.random.default_rng(0).lognormal(4, 0.6, size=4000).astype(int).clip(8, 256).tolist()
    batches = Batches(lengths, 16, seed=0)
    epoch = [batches.at(step) for step in range(batches.per_epoch)]
    shuffled = torch.randperm(4000, generator=torch.Generator().manual_seed(0)).view(-1, 16).tolist()
    assert padding(lengths, shuffled) > 0.4
    assert padding(lengths, epoch) < 0.05
    longest = [max(lengths[index] for index in batch) for batch in epoch]
    assert 0.4 < np.mean(np.diff(longest) >= 0) < 0.6


def test_collate_pads_on_the_right_and_labels_no_padding():
    tokens, labels = collate(
        [
            Example(torch.tensor([5]), torch.tensor([IGNORE])),
            Example(torch.tensor([1, 2, 3]), torch.tensor([IGNORE, 2, 3])),
        ]
    )
    assert tokens.tolist() == [[5, 0, 0], [1, 2, 3]]
    assert labels.tolist() == [[IGNORE, IGNORE, IGNORE], [IGNORE, 2, 3]]
