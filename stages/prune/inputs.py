"""Statistics of the inputs of the matrices in one half of a layer, for criteria and updates."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

import torch

from stages.common import processes
from stages.common.errors import UserError
from stages.common.torch_setup import arithmetic
from stages.models.mixture import Matrix, Mixture
from stages.models.prunable import Kind

if TYPE_CHECKING:
    from stages.prune.activations import Activations

DAMPING = 0.01  # of the mean diagonal: keeps the Hessian invertible when tokens are few or channels dead
# Of its own diagonal, where weights are solved for towards the dense model's stream: as if every input were dropped at
# random, half of the time. A solution that fits the windows alone loses more of other text, and one that damps all
# columns by the same number keeps the small ones as they are. docs/methods-measured.md has the measurements.
DAMPING_TOWARDS_DENSE = 1.0
LEAST = 1e-3  # of the mean diagonal: a dead column's share of it
ZERO = 1e-3  # an activation this small beside the root mean square of all counts as zero


class SharedInput(Protocol):
    """Matrices of one half of a layer that read the same: a module's output matrix, or q, k and v, or gate and up."""

    @property
    def layer(self) -> int:
        """The layer's index."""

    @property
    def kind(self) -> Kind:
        """Which half of the layer."""

    @property
    def name(self) -> str:
        """The name in messages."""

    @property
    def output(self) -> Matrix:
        """The matrix whose inputs stand for those of all."""


class Inputs:
    """Statistics of the inputs X of one matrix W, a module's output matrix or any, one row per token.

    Each is computed when it is first read, from the model as it is then, and summed in float64 over batches and over
    the processes that share the windows: all of them have to read it.
    """

    def __init__(self, activations: Activations, matrices: SharedInput):
        """Describe `matrices` on the windows of `activations`, which stand at their half."""
        self.activations, self.matrices = activations, matrices
        self.linear = matrices.output

    def batches(self) -> Iterator[torch.Tensor]:
        """Yield X, shape (tokens, in)."""
        here = self.activations
        for x in here.read_by_output() if self.linear is here.output else here.normed(here.sources):
            yield x.flatten(0, 1)

    def first(self, tokens: int) -> tuple[list[torch.Tensor], torch.Tensor | slice]:
        """Return the batches of X, which the output reads, that hold the first `tokens` tokens, and their places."""
        batches = self.activations.read_by_output()
        enough = -(-tokens // batches[0].shape[:2].numel())
        return [each.flatten(0, 1) for each in batches[:enough]], slice(None)

    @cached_property
    def tokens(self) -> int:
        """The number of rows of X, in all processes."""
        return processes.total(sum(hidden.shape[0] * hidden.shape[1] for hidden in self.activations.hidden))

    @cached_property
    def moments(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The mean and the mean square of every column of X, shape (in,) each."""
        doubles = (x.double() for x in self.batches())
        sums = torch.stack([torch.stack([x.sum(0), x.square().sum(0)]) for x in doubles])
        first, second = finite(processes.add_up(sums.sum(0)) / self.tokens, self.matrices)
        return first, second

    @cached_property
    def zeros(self) -> torch.Tensor:
        """The share of tokens at which a column of X is next to zero, shape (in,)."""
        threshold = ZERO * self.moments[1].mean().sqrt()
        sums = torch.stack([(x.abs() <= threshold).double().sum(0) for x in self.batches()]).sum(0)
        return processes.add_up(sums) / self.tokens

    @cached_property
    def hessian(self) -> torch.Tensor:
        """H = X'X / n, damped, shape (in, in)."""
        return self.hessian_and_damping[0]

    @cached_property
    def hessian_and_damping(self) -> tuple[torch.Tensor, torch.Tensor]:
        """H and what its diagonal has been given, shape (in,)."""
        square = finite(products(self.batches(), self.batches()) / self.tokens, self.matrices)
        added = damping_towards_dense(square) if self.activations.targets else damping(square)
        square.diagonal().add_(added)
        return square, added

    @cached_property
    def inverse_factor(self) -> torch.Tensor:
        """U, upper triangular, with H^-1 = U'U, shape (in, in)."""
        inverse = torch.cholesky_inverse(torch.linalg.cholesky(self.hessian))
        return torch.linalg.cholesky(inverse, upper=True)

    @cached_property
    def aim(self) -> torch.Tensor:
        """T'X / n, damped as H towards W, shape (out, in).

        T is what the output W X must be for the residual stream after the module to be the dense model's.
        """
        bias, scale = 0 if self.linear.bias is None else self.linear.bias, self.activations.half.scale
        streams = zip(self.activations.targets, self.activations.hidden, strict=True)
        cross = products(((target - stream) / scale - bias for target, stream in streams), self.batches())
        return cross / self.tokens + self.linear.weight.double() * self.hessian_and_damping[1]


class ExpertInputs(Inputs):
    """The same of one expert: a row of X for each token that the router sends to it.

    X is times the router's weight, as what the expert adds to the residual stream is. Statistics are means over these
    tokens; where there are none, all are zero.
    """

    def __init__(self, activations: Activations, matrices: SharedInput, mixture: Mixture, expert: int):
        """Describe expert `expert` of `mixture`, whose output matrix is that of `matrices`."""
        super().__init__(activations, matrices)
        self.mixture, self.expert = mixture, expert

    @cached_property
    def places(self) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Of each batch, the tokens that are sent to the expert, and its place among the experts of each."""
        found = (torch.nonzero(chosen == self.expert, as_tuple=True) for *_, chosen in self.activations.routes())
        return [(rows, place) for rows, place in found]

    @torch.no_grad()
    def batches(self) -> Iterator[torch.Tensor]:
        """Yield X, shape (tokens sent to the expert, in)."""
        for (tokens, weights, _), (rows, place) in zip(self.activations.routes(), self.places, strict=True):
            with arithmetic():
                yield self.mixture.activations(self.expert, tokens[rows]) * weights[rows, place, None]

    @cached_property
    def tokens(self) -> int:
        """The number of rows of X, in all processes, or 1 where there is none."""
        return max(1, processes.total(sum(len(rows) for rows, _ in self.places)))

    def first(self, tokens: int) -> tuple[list[torch.Tensor], torch.Tensor | slice]:
        """Return the same of those of the first tokens that are sent to the expert."""
        starts = torch.tensor([0, *(len(each) for each, *_ in self.activations.routes())]).cumsum(0).tolist()
        rows = torch.cat([rows + start for (rows, _), start in zip(self.places, starts, strict=False)])
        return [torch.cat(list(self.batches()))[rows < tokens]], rows[rows < tokens]


@torch.no_grad()
def products(left: Iterable[torch.Tensor], right: Iterable[torch.Tensor]) -> torch.Tensor:
    """Return the sum over the batches of all processes of A'B, whose rows are tokens, in float64.

    A batch's own product is taken in float32: it has few thousand terms, and its error is far below the damping.
    """
    pairs = zip(left, right, strict=True)
    sums = ((a.flatten(0, -2).float().T @ b.flatten(0, -2).float()).double() for a, b in pairs)
    return processes.add_up(sum(sums, start=torch.zeros((), dtype=torch.float64)))


def damping(square: torch.Tensor) -> torch.Tensor:
    """Return what the diagonal of X'X is given, shape (in,): the same everywhere."""
    return torch.full_like(square.diagonal(), DAMPING * mean_diagonal(square))


def damping_towards_dense(square: torch.Tensor) -> torch.Tensor:
    """Return what the diagonal of X'X is given, shape (in,), where the target is the dense model's stream."""
    return DAMPING_TOWARDS_DENSE * square.diagonal().clamp_min(LEAST * mean_diagonal(square))


def mean_diagonal(square: torch.Tensor) -> float:
    """Return the mean of the diagonal of X'X; where all inputs are zero, any number will do."""
    return square.diagonal().mean().item() or 1.0


def finite(statistics: torch.Tensor, matrices: SharedInput) -> torch.Tensor:
    """Return `statistics`; UserError if they are not finite."""
    if not torch.isfinite(statistics).all():
        raise UserError(
            f"the calibration activations of {matrices.name} are not finite; the base model or its dtype is not usable"
        )
    return statistics
