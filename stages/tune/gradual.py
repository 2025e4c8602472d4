"""Gradual pruning: weights become zero while the model trains (Zhu & Gupta 2017, "To prune, or not to prune").

At each cut the smallest weights of every attention and MLP matrix, by magnitude, become zero, as many as the cubic
schedule says, and stay zero: they get no gradient, and their momentum is cleared. So which weights are pruned can be
read off the weights, and the saved state of a training needs no masks.
"""

from collections.abc import Mapping
from functools import partial

import torch
from torch import nn
from transformers import PreTrainedModel

from stages.common.errors import UserError
from stages.models.parts import Parts
from stages.tune.schedule import Schedule

MOMENTUM = "exp_avg"  # of AdamW: it alone would move a weight that gets no gradient


class Pruning:
    """What gradual pruning does to a model while it trains: nothing, unless a subclass says what."""

    carried: Mapping[str, torch.Tensor] = {}  # what is saved with the state of a training

    def after_backward(self) -> None:
        """Look at a step's gradients, which may be changed, before the optimizer does."""

    def cut(self, step: int) -> None:
        """Prune if it is time to, after `step` steps."""

    def finish(self) -> dict[str, int | float]:
        """Leave the model as it is to be saved; return the metrics."""
        return {}


class WeightPruning(Pruning):
    """Sets weights of `model` to zero by `schedule`, which starts from the zeros that the matrices have by now.

    Raises UserError for a mixture of experts, and for a matrix that has more zeros than the schedule ends with.
    """

    def __init__(self, model: PreTrainedModel, optimizer: torch.optim.Optimizer, schedule: Schedule):
        self.matrices, self.optimizer, self.schedule = matrices(model), optimizer, schedule
        self.initial = {name: share_of_zeros([weight]) for name, weight in self.matrices.items()}
        for name, share in self.initial.items():
            if share > schedule.ratio:
                raise UserError(
                    f"tune.sparsity.ratio = {schedule.ratio:g} is less than the share of zeros in {name} before "
                    f"training, {share:.4f}; expected more, or a lower prune.ratio"
                )
        self.before = share_of_zeros(list(self.matrices.values()))
        for weight in self.matrices.values():
            weight.register_hook(partial(masked, weight))

    @torch.no_grad()
    def cut(self, step: int) -> None:
        """Set weights to zero if the schedule says so after `step` steps; each matrix meets it to half a weight."""
        if not self.schedule.cuts_after(step):
            return
        for name, weight in self.matrices.items():
            zeros = round(self.schedule.sparsity(self.initial[name], step) * weight.numel())
            goes = weight.abs().flatten().argsort(stable=True)[:zeros]  # zeros come first
            for tensor in (weight, self.optimizer.state.get(weight, {}).get(MOMENTUM)):
                if tensor is not None:
                    tensor.view(-1)[goes] = 0

    def finish(self) -> dict[str, int | float]:
        """Return the share of zeros in all matrices, before and after."""
        return {"sparsity_before": self.before, "sparsity_after": share_of_zeros(list(self.matrices.values()))}


def matrices(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    """Return the matrices of the decoder layers by name; UserError for a mixture of experts."""
    check_no_experts(model)
    return {
        f"layer {index} {name}": module.weight
        for index, layer in enumerate(Parts(model).layers)
        for name, module in layer.named_modules()
        if isinstance(module, nn.Linear)
    }


def check_no_experts(model: PreTrainedModel) -> None:
    """Raise UserError for a mixture of experts."""
    if Parts(model).has_experts:
        raise UserError(
            "tune.sparsity.ratio is not allowed for a mixture of experts, whose experts are no single matrices; "
            "expected null"
        )


def masked(weight: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
    """Return the gradient of a matrix without that of its zeros."""
    return gradient * (weight != 0)


def share_of_zeros(weights: list[torch.Tensor]) -> float:
    """Return the share of zeros in some matrices."""
    return sum(int((weight == 0).sum()) for weight in weights) / sum(weight.numel() for weight in weights)
