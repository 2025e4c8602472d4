"""The calibration windows on their way through the model, layer by layer, as the model is when they pass.

A layer that is cut before the windows leave it hands the next one the activations of the model as pruned so far. What
is held at a time is the hidden states of the windows and one layer's statistics (as in SparseGPT, Frantar & Alistarh
2023).
"""

from collections.abc import Iterator
from functools import cached_property

import torch
from transformers import PreTrainedModel

from stages.common.errors import UserError
from stages.common.paging import bring_in
from stages.prune.readers import Readers
from stages.prune.units import Module

TOKENS_PER_PASS = 8192
DAMPING = 0.01  # of the mean diagonal: keeps the Hessian invertible when tokens are few or channels dead
ZERO = 1e-3  # an activation this small beside the module's root mean square counts as zero


class Activations:
    """The windows' hidden states at one layer of `model`; asking for a module's inputs moves them to its layer."""

    def __init__(self, model: PreTrainedModel, windows: torch.Tensor, with_targets: bool = False):
        """Embed `windows`, tokens of shape (count, length); `with_targets`: pass them through the dense layers too."""
        self.layers, self.last_norm = model.model.layers, model.model.norm
        embeddings = model.get_input_embeddings()
        per_pass = max(1, TOKENS_PER_PASS // windows.shape[1])
        bring_in(embeddings)
        with torch.no_grad():
            self.hidden = [embeddings(each.to(embeddings.weight.device)) for each in windows.split(per_pass)]
        self.settings = layer_settings(model, self.hidden[0][:1])
        self.reference = list(self.hidden) if with_targets else []
        self.layer = 0
        self.targets: dict[str, list[torch.Tensor]] = {}

    def inputs(self, module: Module | Readers) -> "Inputs":
        """Return the inputs of the module's output matrix; modules are asked for in the order of their layers."""
        self.go_to(module.layer)
        bring_in(self.layers[self.layer])
        self.note_targets()
        return Inputs(self, module)

    def go_to(self, layer: int) -> None:
        """Pass the layers before `layer`, as they are now."""
        assert layer >= self.layer, "the windows pass each layer once"
        while self.layer < layer:
            self.advance()

    @torch.no_grad()
    def advance(self) -> None:
        """Pass the layer that the windows are at, as it is now."""
        bring_in(self.layers[self.layer])
        self.note_targets()
        self.reference, self.targets = self.targets["mlp"], {}
        self.hidden = [self.run(each)[0] for each in self.hidden]
        self.layer += 1

    @torch.no_grad()
    def note_targets(self) -> None:
        """Keep what this layer, while it is still dense, makes of the dense model's hidden states."""
        if not self.targets:
            passed = [self.run(each) for each in self.reference]
            self.targets = {"attention": [middle for _, middle in passed], "mlp": [output for output, _ in passed]}

    def read(self, kind: str) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yield what the norm before this layer's attention or MLP puts out, and what it did in the dense model.

        Behind the last layer `kind` is "head". Both have shape (tokens, hidden), in float64.
        """
        if kind == "mlp":
            norm, dense = self.layers[self.layer].post_attention_layernorm, self.targets["attention"]
        else:
            norm = self.last_norm if kind == "head" else self.layers[self.layer].input_layernorm
            dense = self.reference
        for hidden, reference in zip(self.hidden, dense, strict=True):
            now = self.run(hidden)[1] if kind == "mlp" else hidden
            yield norm(now).flatten(0, 1).double(), norm(reference).flatten(0, 1).double()

    def run(self, hidden: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the layer's output for `hidden` and the residual stream between its attention and its MLP."""
        caught: list[torch.Tensor] = []
        layer = self.layers[self.layer]
        hook = layer.post_attention_layernorm.register_forward_pre_hook(lambda _, args: caught.append(args[0]))
        try:
            return layer(hidden, **self.settings[self.layer]), caught[0]
        finally:
            hook.remove()


class Inputs:
    """Statistics of the inputs X of one matrix W, a module's output (o_proj, down_proj) or any, one row per token.

    Each is computed when it is first read, in float64, from the model as it is then.
    """

    def __init__(self, activations: Activations, module: Module | Readers):
        """Describe `module` on the windows of `activations`, which stand at its layer."""
        self.activations, self.module = activations, module
        self.linear = module.output

    @torch.no_grad()
    def batches(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yield X, shape (tokens, in), and the residual stream before the module, shape (tokens, out), in float64."""
        caught: list[torch.Tensor] = []
        hook = self.linear.register_forward_pre_hook(lambda _, args: caught.append(args[0]))
        try:
            for hidden in self.activations.hidden:
                _, middle = self.activations.run(hidden)
                stream = hidden if self.module.kind == "attention" else middle
                yield caught.pop().flatten(0, 1).double(), stream.flatten(0, 1).double()
        finally:
            hook.remove()

    @cached_property
    def tokens(self) -> int:
        """The number of rows of X."""
        return sum(hidden.shape[0] * hidden.shape[1] for hidden in self.activations.hidden)

    @cached_property
    def moments(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The mean and the mean square of every column of X, shape (in,) each."""
        sums = torch.stack([torch.stack([x.sum(0), x.square().sum(0)]) for x, _ in self.batches()])
        first, second = finite(sums.sum(0) / self.tokens, self.module)
        return first, second

    @cached_property
    def zeros(self) -> torch.Tensor:
        """The share of tokens at which a column of X is next to zero, shape (in,)."""
        threshold = ZERO * self.moments[1].mean().sqrt()
        return torch.stack([(x.abs() <= threshold).double().sum(0) for x, _ in self.batches()]).sum(0) / self.tokens

    @cached_property
    def hessian(self) -> torch.Tensor:
        """H = X'X / n + 0.01 mean(diag) I, shape (in, in)."""
        width = self.linear.in_features
        hessian = torch.zeros(width, width, dtype=torch.float64, device=self.linear.weight.device)
        for x, _ in self.batches():
            hessian.addmm_(x.T, x)
        hessian = finite(hessian.div_(self.tokens), self.module)
        hessian.diagonal().add_(damping(hessian))
        return hessian

    @cached_property
    def inverse_factor(self) -> torch.Tensor:
        """U, upper triangular, with H^-1 = U'U, shape (in, in)."""
        inverse = torch.cholesky_inverse(torch.linalg.cholesky(self.hessian))
        return torch.linalg.cholesky(inverse, upper=True)

    @cached_property
    def aim(self) -> torch.Tensor:
        """T'X / n, damped as H towards W, shape (out, in).

        T is what the output W X must be for the residual stream behind the module to be the dense model's.
        """
        bias = 0 if self.linear.bias is None else self.linear.bias
        targets = self.activations.targets[self.module.kind]
        pairs = zip(self.batches(), targets, strict=True)
        cross = sum((target.flatten(0, 1) - stream - bias).T @ x for (x, stream), target in pairs) / self.tokens
        undamped = self.hessian.diagonal().mean() / (1 + DAMPING)
        return cross + DAMPING * undamped * self.linear.weight.double()


def damping(hessian: torch.Tensor) -> float:
    """Return what is added to the diagonal; where all inputs are zero, any number will do."""
    return DAMPING * hessian.diagonal().mean().item() or 1.0


def finite(statistics: torch.Tensor, module: Module | Readers) -> torch.Tensor:
    """Return `statistics`; UserError if they are not finite."""
    if not torch.isfinite(statistics).all():
        raise UserError(
            f"the calibration activations of {module.name} are not finite; the base model or its dtype is not usable"
        )
    return statistics


@torch.no_grad()
def layer_settings(model: PreTrainedModel, embedded: torch.Tensor) -> list[dict]:
    """Return what the model passes to each of its layers beside the hidden states, for one window.

    `embedded` are that window's embeddings, shape (1, length, hidden); no layer is run. Positions and masks of one
    window broadcast to any number of windows of its length.
    """
    settings: list[dict] = []

    def note(hidden: torch.Tensor, **others) -> torch.Tensor:
        settings.append(others)
        return hidden

    layers = model.model.layers
    for layer in layers:
        layer.forward = note
    try:
        model.model(inputs_embeds=embedded, use_cache=False)
    finally:
        for layer in layers:
            del layer.forward
    return settings


@torch.no_grad()
def block_influence(model: PreTrainedModel, windows: torch.Tensor) -> torch.Tensor:
    """Return 1 - the mean cosine between the input and the output of every layer, shape (layers,), float64.

    `windows` has shape (count, length). ShortGPT (Men et al. 2024), eq. 1.
    """
    activations = Activations(model, windows)
    influences = []
    for _ in model.model.layers:
        before = activations.hidden
        activations.advance()
        pairs = zip(before, activations.hidden, strict=True)
        cosines = [torch.cosine_similarity(a.double(), b.double(), dim=-1).flatten() for a, b in pairs]
        influences.append(1 - torch.cat(cosines).mean().cpu())
    return torch.stack(influences)
