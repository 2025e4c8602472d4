"""Two stages: whole attentions, and the channels of all MLPs alike (2SSP, Sandri et al. 2025).

Of B attentions round(B s^(r / ALPHA)) go, where s is the share to remove of what all modules cost, and r what an MLP
costs in attentions. They are chosen one after another, each the one whose removal adds least to the divergence from the
dense model. The MLPs give the rest alike, and the attentions that stay give heads only where the MLPs have no more.
2SSP cuts the MLPs first; here attentions are chosen in the dense model, so that an update makes up for each in turn.
"""

import heapq
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from transformers import PreTrainedModel

from stages.common.progress import progress
from stages.models.parts import Parts
from stages.models.prunable import Prunable
from stages.prune.block.allocation import Allocation, shares
from stages.prune.block.divergence import Dense
from stages.prune.block.filling import fill
from stages.prune.block.task import Task
from stages.prune.block.whole import present_attentions, whole_costs, with_gone

ALPHA = 1.5  # 2SSP's choice
TOKENS = 1024  # at most so many, the first, for the divergence


class TwoStage(Allocation):
    def counts(self, task: Task) -> list[int]:
        """Return the counts: all units of the attentions that go, and the channels that make up the rest."""
        return with_gone(task, least_missed(task, number_of_attentions(task)), channels_then_heads)


def channels_then_heads(rest: Task, _: list[int]) -> list[int]:
    """Return the counts by which all MLPs alike meet the budget, and heads where these have no more."""
    keys = [share + (module.kind == "attention") for share, module in zip(shares(rest), rest.modules, strict=True)]
    return fill(rest, keys, pooled=True)


def attentions(task: Task) -> list[int]:
    """Return which modules are attentions."""
    return [i for i, module in enumerate(task.modules) if module.kind == "attention"]


def number_of_attentions(task: Task) -> int:
    """Return how many attentions go: not the model's last one, and no more than what is to be removed."""
    costs = whole_costs(task)
    ours = [costs[i] for i in attentions(task)]
    layers = len({module.layer for module in task.modules if module.kind == "mlp"})
    if not layers or not any(ours):
        return 0
    ratio = (sum(costs) - sum(ours)) / layers / (sum(ours) / len(ours))
    share = min(1.0, task.excess / sum(costs))
    most = present_attentions(task.model) - 1
    return min(round(len(ours) * share ** (ratio / ALPHA)), most, int(task.excess / max(ours)))


def least_missed(task: Task, number: int) -> list[int]:
    """Return which attentions go: `number` times the one whose removal adds least to the divergence.

    What a removal adds is taken to grow as others go, so that only the first in line are measured again (Minoux 1978).
    """
    dense, gone, now = Dense(task.model, task.windows[: max(1, TOKENS // task.windows.shape[1])]), [], 0.0
    with ExitStack() as stack:

        def divergence_without(i: int) -> float:
            with skipped(task.model, task.modules[i]):
                return dense.of_model(task.model)

        candidates = attentions(task) if number else []
        line = [(divergence_without(i), i, 0) for i in progress(candidates, "two_stage")]
        heapq.heapify(line)
        for step in range(number):
            while line[0][2] < step:
                _, i, _ = line[0]
                heapq.heapreplace(line, (divergence_without(i) - now, i, step))
            rise, i, _ = heapq.heappop(line)
            now += rise
            gone.append(i)
            stack.enter_context(skipped(task.model, task.modules[i]))
    return gone


@contextmanager
def skipped(model: PreTrainedModel, module: Prunable) -> Iterator[None]:
    """Let the model do without `module`."""
    parts = Parts(model)
    layer = parts.layers[module.layer]
    there = {name: layer.get_submodule(name) for name in parts.family.skipped_modules[module.kind]}
    parts.skip(module.layer, module.kind)
    try:
        yield
    finally:
        for name, each in there.items():
            layer.set_submodule(name, each)
