"""Search: the sensitivity allocation, refined on the joint divergence from the dense model.

The sum that the knapsack minimises ignores how modules interact. From its solution on, a random module gives less and
another of its budget more; the model is pruned so, and stays so if its divergence on the calibration windows is less.
Tyr-the-Pruner (Li et al. 2025) evolves a population of prepared layers; here one candidate at a time is pruned for
real.
"""

import copy
import random

from stages.common.progress import progress
from stages.prune.block.allocation.sensitivity import Sensitivity, best_counts, topped_up
from stages.prune.block.divergence import Dense
from stages.prune.block.sequence import cut_modules
from stages.prune.block.task import Task

TRIALS = 40
SHARES = (0.25, 0.125, 0.0625)  # of a module's units that a move shifts, at the least one unit


class Search(Sensitivity):
    def counts(self, task: Task) -> list[int]:
        """Return the best allocation found."""
        best, dense = best_counts(task, self.losses(task)), Dense(task.model, task.windows)
        least = joint_divergence(task, best, dense)
        generator = random.Random(task.params.seed)
        movable = any(len(pool.bundles) > 1 for pool in task.pools(pooled=True))
        for _ in progress(range(TRIALS if movable else 0), "search"):
            trial = moved(task, best, generator)
            divergence = joint_divergence(task, trial, dense)
            if divergence < least:
                best, least = trial, divergence
        return topped_up(task, best)


def moved(task: Task, counts: list[int], generator: random.Random) -> list[int]:
    """Return `counts` with one bundle giving less and another of the same budget as much more, in full units."""
    pool = generator.choice([pool for pool in task.pools(pooled=True) if len(pool.bundles) > 1])
    less, more = generator.sample(pool.bundles, 2)
    share, new = generator.choice(SHARES), list(counts)
    back = min(counts[less.members[0]], max(1, round(share * less.units)))
    for i in less.members:
        new[i] -= back
    for i in more.members:
        new[i] = min(more.counts[-1], new[i] + int(back * less.price // more.price))
    return new


def joint_divergence(task: Task, counts: list[int], dense: Dense) -> float:
    """Return the divergence, in nats per token, of a copy of the model pruned by `counts` filled up to the budget."""
    trial = copy.deepcopy(task)
    cut_modules(trial, topped_up(trial, counts))
    return dense.of_model(trial.model)
