"""A mixture of experts in memory: stacked tensors, and the matrices of one expert, which are views of them."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn


@dataclass(frozen=True, eq=False)
class ExpertMatrix:
    """A matrix of one expert, in its place in the stacked tensors; it has what a linear layer has."""

    stack: Any
    name: str  # of the stacked tensor
    expert: int
    part: int = 0  # of the `parts` that its rows are stacked in
    parts: int = 1
    bias: None = None

    @property
    def stacked(self) -> nn.Parameter:
        """The tensor of all experts; another one once a layer is read or cut."""
        return self.stack.get_parameter(self.name)

    @property
    def weight(self) -> torch.Tensor:
        """The matrix, (out, in): a view, so that what changes it changes the model."""
        return self.of(self.stacked.detach())

    @property
    def in_features(self) -> int:
        """The number of columns."""
        return self.weight.shape[1]

    @property
    def out_features(self) -> int:
        """The number of rows."""
        return self.weight.shape[0]

    def of(self, stacked: torch.Tensor) -> torch.Tensor:
        """Return this matrix's part of a tensor of all experts: of their weights, or of the gradients."""
        return stacked[self.expert].chunk(self.parts)[self.part]


Matrix = nn.Linear | ExpertMatrix


def stored(matrix: Matrix) -> torch.Tensor:
    """Return the parameter that holds `matrix`."""
    return matrix.stacked if isinstance(matrix, ExpertMatrix) else matrix.weight


def within(matrix: Matrix, tensor: torch.Tensor) -> torch.Tensor:
    """Return the part of `tensor`, shaped as the parameter that holds `matrix`, that belongs to the matrix."""
    return matrix.of(tensor) if isinstance(matrix, ExpertMatrix) else tensor


@dataclass(frozen=True)
class Mixture:
    """A layer's MLP as a mixture of experts, the experts along the first dimension of each stacked tensor."""

    module: Any
    norm: Any
    router: Any  # its weight has shape (experts, hidden)
    stack: Any
    gate_up: str  # of the stack, (experts, 2 width, hidden)
    down: str  # likewise, (experts, hidden, width)
    scale: float = 1.0  # as of a Half
    together: bool = False

    @property
    def tensors(self) -> dict[str, nn.Parameter]:
        """The stacked tensors, by name."""
        return {name: self.stack.get_parameter(name) for name in (self.gate_up, self.down)}

    @property
    def experts(self) -> int:
        """The number of experts."""
        return len(self.router.weight)

    @property
    def width(self) -> int:
        """The MLP channels of each expert."""
        return self.tensors[self.down].shape[2]

    @property
    def expert_size(self) -> int:
        """The parameters of one expert, without its row of the router."""
        return sum(tensor[0].numel() for tensor in self.tensors.values())

    @property
    def output(self) -> Any:
        """What writes to the residual stream: the module as a whole, which reads what the norm puts out."""
        return self.module

    def result(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return what is added to the residual stream when the module reads `inputs`."""
        return self.module(inputs)

    def matrices(self, expert: int) -> tuple[ExpertMatrix, ExpertMatrix, ExpertMatrix]:
        """Return the gate, up and down matrices of one expert."""
        gate, up = (ExpertMatrix(self.stack, self.gate_up, expert, part, 2) for part in range(2))
        return gate, up, ExpertMatrix(self.stack, self.down, expert)

    def activations(self, expert: int, tokens: torch.Tensor) -> torch.Tensor:
        """Return what the down matrix of one expert reads, (tokens, width), where the expert reads `tokens`."""
        gate, up, _ = self.matrices(expert)
        return self.stack.act_fn(nn.functional.linear(tokens, gate.weight)) * nn.functional.linear(tokens, up.weight)

    def narrow(self, width: int) -> None:
        """Keep the first `width` channels of every expert."""
        gate_up, down = self.tensors[self.gate_up].detach(), self.tensors[self.down].detach()
        halves = gate_up.unflatten(1, (2, -1))[:, :, :width]
        kept = {self.gate_up: halves.flatten(1, 2), self.down: down[:, :, :width].contiguous()}
        for name, tensor in kept.items():
            setattr(self.stack, name, nn.Parameter(tensor, requires_grad=False))
