"""Is a difference between two models more than chance? Paired tests on the same questions and the same windows."""

from dataclasses import dataclass

import numpy as np
from scipy.stats import binomtest

RESAMPLED_WINDOWS_AT_ONCE = 1_000_000  # bounds the bootstrap's memory to some 50 MB


@dataclass(frozen=True)
class McNemar:
    """Questions that only one of two models answers right, and how likely a split that uneven is by chance."""

    lost: int  # right in the reference, wrong in the model
    won: int  # wrong in the reference, right in the model
    p: float


def mcnemar(reference: np.ndarray, model: np.ndarray) -> McNemar:
    """Return the exact two-sided test that both models are right equally often (McNemar 1947, exact binomial form).

    `reference` and `model` hold 0 or 1 for the same questions, shape (questions,). Only questions on which the two
    differ count: under the null each of them falls to either side with probability 1/2.
    """
    lost = int(np.sum((reference == 1) & (model == 0)))
    won = int(np.sum((reference == 0) & (model == 1)))
    p = float(binomtest(won, lost + won, 0.5).pvalue) if lost + won else 1.0
    return McNemar(lost, won, p)


def above_chance(correct: int, questions: int, chance: float) -> float:
    """Return the probability of at least `correct` right answers out of `questions` by guessing (exact binomial)."""
    return float(binomtest(correct, questions, chance, alternative="greater").pvalue)


def holm(p_values: list[float]) -> list[float]:
    """Return the p-values adjusted so that the chance of any false finding among them keeps the level (Holm 1979)."""
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def mean_loss(losses: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    """Return the token-weighted mean of window losses, shape (windows, models) -> (models,)."""
    return (tokens[:, None] * losses).sum(axis=0) / tokens.sum()


def bootstrap_losses(losses: np.ndarray, tokens: np.ndarray, samples: int, seed: int) -> np.ndarray:
    """Return mean losses over windows drawn with replacement, shape (samples, models).

    `losses` is nats per token, shape (windows, models); `tokens` are the windows' sizes, shape (windows,). A draw takes
    the same windows for all models, so that how hard a window is cancels out of their differences.
    """
    generator = np.random.default_rng(seed)
    windows = len(losses)
    weighted = tokens[:, None] * losses
    means = [np.empty((0, losses.shape[1]))]
    batch = max(1, RESAMPLED_WINDOWS_AT_ONCE // windows)
    for start in range(0, samples, batch):
        drawn = generator.integers(windows, size=(min(batch, samples - start), windows))
        means.append(weighted[drawn].sum(axis=1) / tokens[drawn].sum(axis=1)[:, None])
    return np.concatenate(means)
