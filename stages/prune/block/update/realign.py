"""Realign: refit towards the dense model, so that the residual stream after each module is what it was.

Refit reproduces each matrix's output on inputs that have already drifted. With T what the output must be to undo that
drift, the least-squares solution is W' = (T'X)[:, S] (X'X)[S, S]^-1, damped towards W (the asymmetric calibration of
GPTAQ, Li et al. 2025, and QEP, Arai & Ichikawa 2025, for pruning). The matrices that read the stream (q, k, v, gate,
up) come before the module's units are scored: on the drifted inputs X they are to put out what they did on the dense
model's D, W' = W D'X (X'X)^-1, damped likewise. Then the output matrix is solved for with all its inputs, so that
criterion obs removes what is worth least for T and not for what the matrix put out before. At the end come the weights
of the last norm, channel by channel: what least squares cannot bring back is missing from the stream, a norm blows up
the rest, and the head would be surer than it has reason to be. Modules that lose no unit are realigned too. With
`prune.iterative_steps` above 1 each step's dense model is what the step before left.
"""

import torch

from stages.models.half import Half
from stages.models.prunable import Prunable
from stages.prune.activations import Activations
from stages.prune.block.update import Update
from stages.prune.block.update.refit import divided, set_columns
from stages.prune.drift import fit_last_norm, undo_drift
from stages.prune.groups import groups_of
from stages.prune.inputs import Inputs


class Realign(Update):
    needs = "targets"

    @torch.no_grad()
    def receive(self, module: Prunable, inputs: Inputs) -> None:
        """Set the matrices that read the stream to the least-squares solution, by one factor, then the output's."""
        here = inputs.activations
        assert isinstance(here.half, Half), "realign of experts is refused"
        readers = next(groups_of(module.layer, module.kind, here.half))
        factor = undo_drift(here.inputs(readers))
        for linear in (linear for linear, dim in module.matrices if dim == 0):
            linear.weight.copy_((linear.weight.double() @ factor).to(linear.weight.dtype))
        self.update(module, torch.arange(module.units), inputs)

    @torch.no_grad()
    def update(self, module: Prunable, keep: torch.Tensor, inputs: Inputs) -> None:
        """Set the kept columns to the least-squares solution, the others to zero."""
        kept = module.columns(keep).to(inputs.linear.weight.device)
        set_columns(inputs.linear.weight, kept, divided(inputs.aim[:, kept], inputs.hessian, kept))

    def finish(self, activations: Activations) -> None:
        """Set the weights of the last norm to the least-squares solution, each for its channel."""
        fit_last_norm(activations)
