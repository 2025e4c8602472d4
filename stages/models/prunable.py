"""What a unit is in the block structure: an MLP channel, or a key/value head with the query heads that read it.

Units lie along one axis of each of their matrices, and scoring and surgery need only this
axis: dimension 0 (rows, outputs) of q, k, v, gate and up; dimension 1 (columns, inputs) of o and down. A matrix that
holds several of these, one after the other, has rows of a unit in each of its parts. In a mixture each expert is a
module of its own: it chooses its channels, and keeps as many as its layer's others.
"""

from collections.abc import Iterable
from copy import copy
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn
from transformers import PreTrainedModel

from stages.models.half import Half
from stages.models.mixture import ExpertMatrix, Matrix, Mixture
from stages.models.parts import Parts

EXPERT_STEP = 8  # torch's grouped products want rows of experts in multiples of 16 bytes: 8 numbers of 16 bits
BLOCK = 2**18  # numbers of a matrix that are reduced or moved at a time
Kind = Literal["attention", "mlp", "channel"]
Matrices = tuple[tuple[Matrix, int], ...]  # (matrix, the dimension its units lie along), the root matrix first


@dataclass(frozen=True)
class Prunable:
    """One layer's attention or MLP, or one expert of it, as a row of removable units."""

    layer: int
    kind: Kind
    units: int
    width: int  # outputs of the root matrix that one unit holds: head_dim, or 1 for a channel
    cost: int  # parameters that removing one unit removes, biases included
    matrices: Matrices
    norms: tuple[Any, ...] = ()  # whose weights lie along the units
    sections: tuple[int, ...] = ()  # the rows of each part of the matrix that writes the units, () where it has but one
    half: Any = None  # the attention or the MLP
    counts: tuple[tuple[str, int], ...] = ()  # attributes of it, and how many times the number of units each holds
    mixture: Mixture | None = None  # that the module is an expert of
    rest: int = 0  # parameters that the attention or the MLP has beside its units, its norms included

    @property
    def name(self) -> str:
        """The name in messages."""
        expert = "" if self.expert is None else f", expert {self.expert}"
        return "the residual stream" if self.kind == "channel" else f"layer {self.layer} {self.kind}{expert}"

    @property
    def expert(self) -> int | None:
        """Which expert of its layer, None for what is none."""
        return self.output.expert if isinstance(self.output, ExpertMatrix) else None

    @property
    def linears(self) -> list[tuple[nn.Linear, int]]:
        """The matrices, where they are layers: an expert's are not."""
        return [(matrix, dim) for matrix, dim in self.matrices if isinstance(matrix, nn.Linear)]

    @property
    def step(self) -> int:
        """What the number of units left is a multiple of."""
        return EXPERT_STEP if self.mixture else 1

    @property
    def passed(self) -> float:
        """The share of the tokens that pass the module: a router chooses some of its experts for each."""
        return self.mixture.router.top_k / self.mixture.experts if self.mixture else 1.0

    @property
    def output(self) -> Matrix:
        """The matrix that reads the units."""
        return self.matrices[-1][0]

    def columns(self, units: torch.Tensor) -> torch.Tensor:
        """Return the columns of the output matrix that `units` hold, in their order."""
        return torch.arange(self.output.in_features).view(self.units, -1)[units.cpu()].flatten()

    def by_unit(self, lines: torch.Tensor, dim: int) -> torch.Tensor:
        """Return rows of a matrix whose units lie along `dim`, or what stands for each, those of a unit together."""
        if dim or not self.sections:
            return lines
        parts = [part.unflatten(0, (self.units, -1)) for part in lines.split(self.sections)]
        return torch.cat(parts, 1).flatten(0, 1)

    def set_counts(self, units: int) -> None:
        """Let the attention know that it has so many units."""
        for name, times in self.counts:
            if name.startswith("config."):  # the config is that of all layers, so this one gets its own
                self.half.config = copy(self.half.config)
                setattr(self.half.config, name.removeprefix("config."), units * times)
            else:
                setattr(self.half, name, units * times)


def make_module(layer: int, kind: Kind, width: int, half: Half) -> Prunable:
    """Return the module of units that hold `width` outputs of the first matrix each."""
    matrices: Matrices = (*((linear, 0) for linear in half.units), (half.output, 1))
    units = half.rows // width
    size = sum(linear.weight.numel() for linear, _ in matrices)
    size += sum(linear.bias.numel() for linear, dim in matrices if dim == 0 and linear.bias is not None)
    size += sum(norm.weight.numel() for norm in half.unit_norms)
    whole = sum(each.numel() for part in (half.module, half.norm, half.after) for each in part.parameters())
    return Prunable(
        layer, kind, units, width, size // units, matrices, tuple(half.unit_norms), half.sections, half.module,
        tuple(half.counts.items()), rest=whole - size,
    )  # fmt: skip


def expert_modules(layer: int, mixture: Mixture) -> list[Prunable]:
    """Return the experts of a layer, each a module whose units are its MLP channels."""
    size = mixture.expert_size // mixture.width
    experts = (mixture.matrices(expert) for expert in range(mixture.experts))
    return [
        Prunable(layer, "mlp", mixture.width, 1, size, ((gate, 0), (up, 0), (down, 1)), mixture=mixture)
        for gate, up, down in experts
    ]


def block_modules(model: PreTrainedModel, attention_layers: Iterable[int], mlp_layers: Iterable[int]) -> list[Prunable]:
    """Return the prunable modules of `model`, by layer, attention before MLP or experts, without those it lacks.

    In grouped-query attention key/value head j serves query heads j*n_rep .. (j+1)*n_rep-1 (repeat_interleave), so a
    plain split of q's rows and o's columns into as many parts as there are key/value heads pairs them as the model.
    """
    attention, mlp, parts = set(attention_layers), set(mlp_layers), Parts(model)
    modules, head_dim = [], parts.head_dim
    for index, layer in enumerate(parts.layers):
        if index in attention and not (half := parts.attention(layer)).skipped:
            modules.append(make_module(index, "attention", head_dim, half))
        if index in mlp and parts.has_experts:
            modules += expert_modules(index, parts.mixture(layer))
        elif index in mlp and not (half := parts.mlp(layer)).skipped:
            modules.append(make_module(index, "mlp", 1, half))
    return modules
