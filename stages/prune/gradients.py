"""Gradients of the calibration loss, handed over weight by weight as the backward pass makes them."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch.utils.checkpoint import checkpoint
from tqdm import tqdm
from transformers import PreTrainedModel

from stages.common.errors import UserError

TOKENS_PER_PASS = 8192  # what one forward and backward pass may hold the activations of
FLOAT16_LOSS_SCALE = 1024.0  # float16 gradients of a mean loss would underflow; the scale is taken out in float32

Reduce = Callable[[torch.Tensor, torch.Tensor, torch.Tensor | None], None]


def gradients(
    model: PreTrainedModel, windows: torch.Tensor, weights: list[torch.Tensor], reduce: Reduce, per_window: bool
) -> None:
    """Call `reduce(weight, gradient, squared)` once for each of `weights`, in float32.

    `windows` has shape (count, length). `gradient` is that of the mean loss over all windows; `squared` is the mean of
    the squared gradients of the single windows if `per_window`, else None. A gradient is freed as soon as it is
    reduced, and nothing is back-propagated below the first of `weights`. Raises UserError when the loss is not finite.
    """
    per_pass = 1 if per_window else max(1, TOKENS_PER_PASS // windows.shape[1])
    passes = windows.split(per_pass)
    scale = FLOAT16_LOSS_SCALE if model.dtype == torch.float16 else 1.0
    sums: dict[torch.Tensor, torch.Tensor] = {}
    squares: dict[torch.Tensor, torch.Tensor] = {}
    share, last = 0.0, False

    def take(weight: torch.Tensor) -> None:
        assert weight.grad is not None, "the hook runs once the gradient is there"
        gradient = weight.grad.float() / scale
        weight.grad = None
        if per_window:
            squares[weight] = squares.get(weight, 0) + gradient.square() * share
        if len(passes) > 1:
            sums[weight] = sums.get(weight, 0) + gradient * share
            gradient = sums[weight]
        if last:
            reduce(weight, gradient, squares.pop(weight, None))
            sums.pop(weight, None)

    trainable = {parameter: parameter.requires_grad for parameter in model.parameters()}
    model.requires_grad_(False)
    hooks = [weight.requires_grad_().register_post_accumulate_grad_hook(take) for weight in weights]
    try:
        for number, batch in enumerate(tqdm(passes, desc="calibration", disable=len(passes) < 4)):
            share, last = len(batch) / len(windows), number == len(passes) - 1
            batch = batch.to(model.device)
            with recomputed(model):
                loss = model(input_ids=batch, labels=batch, use_cache=False).loss
                if not math.isfinite(loss.item()):
                    raise UserError(f"the calibration loss is {loss.item()}; the base model or its dtype is not usable")
                (loss * scale).backward()
    finally:
        for hook in hooks:
            hook.remove()
        for parameter, required in trainable.items():
            parameter.requires_grad_(required)


@contextmanager
def recomputed(model: PreTrainedModel) -> Iterator[None]:
    """Let a backward pass compute each layer's activations anew, so that those of one layer are held at a time.

    The values are the same. TinyLlama on 10 x 64 tokens in float32 would hold 1.8 GiB of them.
    """
    layers = model.model.layers
    for layer in layers:
        layer.forward = partial(checkpoint, layer.forward, use_reentrant=False)
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward
