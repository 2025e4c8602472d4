"""A loss over the vocabulary, computed for a few tokens at a time.

The logits of a batch are the largest tensor in recovery: 2,048 tokens with a vocabulary of 49,152 take 384 MiB in
float32, and several times that with log-softmax and gradients. Here only one slice is held. Its gradient is computed
with its loss, in the forward pass, so that nothing is stored or computed twice.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from stages.models.parts import Head

TOKENS = 128  # of a slice

Score = Callable[[torch.Tensor, slice], torch.Tensor]


def sliced_sum(score: Score, hidden: torch.Tensor, head: nn.Module | Head) -> torch.Tensor:
    """Return the sum of `score(hidden[rows], rows)`, a scalar each, over slices `rows` of the tokens, in float32.

    `hidden` has shape (tokens, hidden size). Gradients reach `hidden` and the parameters of `head`, which is all that
    `score` may depend on else.
    """
    parameters = [parameter for parameter in head.parameters() if parameter.requires_grad]
    if torch.is_grad_enabled():
        return SlicedSum.apply(score, hidden, *parameters)
    total = hidden.new_zeros((), dtype=torch.float32)
    for rows in slices(len(hidden)):
        total += score(hidden[rows], rows)
    return total


def slices(tokens: int) -> list[slice]:
    """Return the slices of `tokens` tokens."""
    return [slice(start, start + TOKENS) for start in range(0, tokens, TOKENS)]


class SlicedSum(torch.autograd.Function):
    """The sum of a score over slices, and its gradient, which the forward pass computes."""

    @staticmethod
    def forward(ctx: Any, score: Score, hidden: torch.Tensor, *parameters: torch.Tensor) -> torch.Tensor:
        """Return the sum; see `sliced_sum`."""
        total = hidden.new_zeros((), dtype=torch.float32)
        by_hidden = torch.empty_like(hidden)
        by_parameters = [torch.zeros_like(parameter) for parameter in parameters]
        for rows in slices(len(hidden)):
            part = hidden[rows].detach().requires_grad_()
            with torch.enable_grad():
                loss = score(part, rows)
            gradients = torch.autograd.grad(loss, [part, *parameters])
            by_hidden[rows] = gradients[0]
            for whole, gradient in zip(by_parameters, gradients[1:], strict=True):
                whole += gradient
            total += loss.detach()
        ctx.save_for_backward(by_hidden, *by_parameters)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Return the gradients by `hidden` and the parameters; `gradients` holds the sum's."""
        return (None, *(saved * gradients[0] for saved in ctx.saved_tensors))
