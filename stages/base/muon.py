"""Muon: momentum whose update is orthogonalised, for the weight matrices between embedding and head.

Source: Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/; the scale of the update is that of Liu et al.
2025 (arXiv 2502.16982), which lets it share AdamW's learning rate. torch.optim.Muon computes in bfloat16, which takes
three times as long as a whole training step on a CPU without bfloat16 units: this one keeps the dtype and takes the
matrices of one shape together.
"""

from collections import defaultdict
from collections.abc import Iterable

import torch

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # brings singular values to about 1 in five iterations
ITERATIONS = 5


class Muon(torch.optim.Optimizer):
    """Muon with Nesterov momentum and decoupled weight decay; takes matrices only."""

    def __init__(
        self, parameters: Iterable[torch.Tensor], lr: float, momentum: float = 0.95, weight_decay: float = 0.1
    ):
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure=None) -> None:  # type: ignore[override]
        """Update every parameter that has a gradient."""
        for group in self.param_groups:
            same_shape: dict[torch.Size, list[torch.Tensor]] = defaultdict(list)
            for parameter in group["params"]:
                if parameter.grad is not None:
                    same_shape[parameter.shape].append(parameter)
            for (rows, columns), parameters in same_shape.items():
                updates = orthogonalize(torch.stack([self.direction(each, group["momentum"]) for each in parameters]))
                scale = 0.2 * max(rows, columns) ** 0.5  # the root mean square of AdamW's updates
                for parameter, update in zip(parameters, updates, strict=True):
                    parameter.mul_(1 - group["lr"] * group["weight_decay"])
                    parameter.add_(update, alpha=-group["lr"] * scale)

    def direction(self, parameter: torch.Tensor, momentum: float) -> torch.Tensor:
        """Return the Nesterov momentum of the parameter's gradients, and remember this one."""
        assert parameter.grad is not None
        buffer = self.state[parameter].setdefault("momentum", torch.zeros_like(parameter))
        buffer.lerp_(parameter.grad, 1 - momentum)
        return parameter.grad.lerp(buffer, momentum)


def orthogonalize(matrices: torch.Tensor) -> torch.Tensor:
    """Return `matrices` (n, rows, columns) with about the same singular vectors and singular values in [0.5, 1.5]."""
    first, second, third = NEWTON_SCHULZ
    tall = matrices.shape[1] > matrices.shape[2]
    result = matrices.mT if tall else matrices
    result = result / result.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    for _ in range(ITERATIONS):
        gram = result @ result.mT
        result = torch.baddbmm(result, torch.baddbmm(gram, gram, gram, beta=second, alpha=third), result, beta=first)
    return result.mT if tall else result
