"""Gradual pruning of units: MLP channels and key/value heads become zero while the model trains, and are then removed.

At each cut the units of the lowest scores become zero in every attention and MLP, as many as the cubic schedule says,
and stay zero: they get no gradient, and their momentum is cleared. A unit's score is the running mean over the steps
of the sum of |w g| over its weights w with the gradients g that the training has anyway (Molchanov et al. 2019; the
sum is LLM-Pruner's element-wise importance).
"""

import math
from typing import NamedTuple

import torch
from transformers import PreTrainedModel

from stages.common.errors import UserError
from stages.models.parts import Parts
from stages.models.prunable import Prunable, block_modules
from stages.models.surgery import keep_units
from stages.tune.gradual import MOMENTUM, Pruning, check_no_experts
from stages.tune.schedule import Schedule

MEMORY = 0.9  # share of the running mean that a step leaves, as in Molchanov et al.
GONE = -math.inf  # the score of a unit that is zero


class Slices(NamedTuple):
    """Where a module's units lie in one of its parameters."""

    parameter: torch.Tensor
    dim: int
    lines: torch.Tensor  # (units, lines): the rows or columns of each unit


class UnitPruning(Pruning):
    """Sets units of `model` to zero by `schedule`, and removes them at the end.

    `carried` holds the scores of the units of each attention and MLP, on the CPU.
    Raises UserError for a mixture of experts and for a model of low rank.
    """

    def __init__(self, model: PreTrainedModel, optimizer: torch.optim.Optimizer, schedule: Schedule):
        check_no_experts(model)
        if getattr(model.config, "ranks", None):
            raise UserError(
                "tune.sparsity.structure = 'block' is not allowed for a model of low rank, whose matrices are products "
                "of two thin ones; expected weight"
            )
        self.model, self.optimizer, self.schedule = model, optimizer, schedule
        layers = range(len(Parts(model).layers))
        self.modules = {module.name: module for module in block_modules(model, layers, layers)}
        self.slices = {name: slices_of(module) for name, module in self.modules.items()}
        self.carried = {name: torch.zeros(module.units) for name, module in self.modules.items()}

    @torch.no_grad()
    def after_backward(self) -> None:
        """Add the step's gradients to the scores, and take those of units that are zero away."""
        for name, scores in self.carried.items():
            scores *= MEMORY
            gone = scores == GONE
            for parameter, dim, lines in self.slices[name]:
                gradient = parameter.grad
                assert gradient is not None, "every weight is trained"
                values = (parameter * gradient).abs_()
                by_line = values.sum(1 - dim) if values.dim() > 1 else values
                scores += (1 - MEMORY) * by_line.cpu()[lines].sum(1)
                gradient.index_fill_(dim, lines[gone].flatten().to(gradient.device), 0)

    @torch.no_grad()
    def cut(self, step: int) -> None:
        """Set units to zero if the schedule says so after `step` steps; each module meets it to half a unit."""
        if not self.schedule.cuts_after(step):
            return
        share = self.schedule.sparsity(0.0, step)
        for name, scores in self.carried.items():
            count = min(round(share * len(scores)), len(scores) - 1)
            goes = scores.argsort(stable=True)[:count]  # those that are zero come first
            scores[goes] = GONE
            for parameter, dim, lines in self.slices[name]:
                for tensor in (parameter, self.optimizer.state.get(parameter, {}).get(MOMENTUM)):
                    if tensor is not None:
                        tensor.index_fill_(dim, lines[goes].flatten().to(tensor.device), 0)

    @torch.no_grad()
    def finish(self) -> dict[str, int | float]:
        """Remove the units that are zero; return how many parameters the model had and has."""
        before, parts = self.model.num_parameters(), Parts(self.model)
        for name, module in self.modules.items():
            keep = torch.nonzero(self.carried[name] != GONE).flatten()
            attention = parts.attention(parts.layers[module.layer])
            if module.kind == "attention" and attention.together:  # the norm's mean square stays, of fewer numbers
                factor = math.sqrt(len(keep) / module.units)
                for linear, norm in attention.input_norms:
                    norm.weight.div_(factor)
                    for parameter in linear.parameters():
                        parameter.mul_(factor)
            keep_units(module, keep)
        return {"parameters_before": before, "parameters_after": self.model.num_parameters()}


def slices_of(module: Prunable) -> list[Slices]:
    """Return where the units of `module` lie in its weights and biases."""
    found = []
    for linear, dim in module.linears:
        lines = module.by_unit(torch.arange(linear.weight.shape[dim]), dim).view(module.units, -1)
        found.append(Slices(linear.weight, dim, lines))
        if dim == 0 and linear.bias is not None:
            found.append(Slices(linear.bias, 0, lines))
    return found
