"""Gradients of the calibration loss, passed on weight by weight during the backward pass."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import torch
import torch.nn.functional as F
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts
from transformers import PreTrainedModel

from stages.common import processes
from stages.common.errors import UserError
from stages.common.progress import progress
from stages.models.parts import Head, Parts

TOKENS_PER_PASS = 512  # what one forward and backward pass may hold the activations of
TOKENS_OF_LOGITS = 128  # a vocabulary is many times as wide as a layer
ROWS_OF_HEAD = 1024
FLOAT16_LOSS_SCALE = 1024.0  # float16 gradients of a mean loss would underflow; the scale is taken out in float32

PRODUCTS = {  # the operators that take a layer's time
    torch.ops.aten.mm.default,
    torch.ops.aten.addmm.default,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default,
    torch.ops.aten._scaled_dot_product_flash_attention.default,
    torch.ops.aten._scaled_dot_product_efficient_attention.default,
    torch.ops.aten._scaled_dot_product_cudnn_attention.default,
}

Reduce = Callable[[torch.Tensor, torch.Tensor, torch.Tensor | None], None]


def gradients(
    model: PreTrainedModel, windows: torch.Tensor, weights: list[torch.Tensor], reduce: Reduce, per_window: bool
) -> None:
    """Call `reduce(weight, gradient, squared)` once for each of `weights`.

    `windows` has shape (count, length). `gradient` is that of the mean loss over all windows, summed in float32 where
    they take several passes; `squared`, in float32, is the mean of the squared gradients of the single windows if
    `per_window`, else None. Several processes each have their own windows, and all reduce the means over all. A
    gradient is freed as soon as it is reduced, and nothing is back-propagated below the first of `weights`. Raises
    UserError when the loss is not finite.
    """
    per_pass = 1 if per_window else max(1, TOKENS_PER_PASS // windows.shape[1])
    passes = windows.split(per_pass)
    scale = FLOAT16_LOSS_SCALE if model.dtype == torch.float16 else 1.0
    sums: dict[torch.Tensor, torch.Tensor] = {}
    squares: dict[torch.Tensor, torch.Tensor] = {}
    share, last = 0.0, False
    count = processes.total(len(windows))
    added = count > len(passes[0])  # not all in one pass
    head = any(weight is model.get_output_embeddings().weight for weight in weights)

    def take(weight: torch.Tensor) -> None:
        assert weight.grad is not None, "the hook runs once the gradient is there"
        gradient, weight.grad = weight.grad, None
        if scale != 1:
            gradient = gradient.float() / scale
        if per_window:
            add(squares, weight, gradient.float().square(), share)
        if added:
            add(sums, weight, gradient.float(), share)
        if last:
            means = [each.pop(weight) for each in (sums, squares) if weight in each]
            for mean in means:
                processes.add_up(mean)
            reduce(weight, means[0] if added else gradient, means[-1] if per_window else None)

    trainable = {parameter: parameter.requires_grad for parameter in model.parameters()}
    model.requires_grad_(False)
    hooks = [weight.requires_grad_().register_post_accumulate_grad_hook(take) for weight in weights]
    try:
        for number, batch in enumerate(progress(passes, "calibration")):
            share, last = len(batch) / count, number == len(passes) - 1
            batch = batch.to(model.device)
            with recomputed(model):
                backward(model, batch, scale, whole=head)
    finally:
        for hook in hooks:
            hook.remove()
        for parameter, required in trainable.items():
            parameter.requires_grad_(required)


def backward(model: PreTrainedModel, tokens: torch.Tensor, scale: float, whole: bool) -> None:
    """Back-propagate `scale` times the mean next-token loss of `tokens`, through the head's weight only if `whole`."""
    if whole:
        loss = model(input_ids=tokens, labels=tokens, use_cache=False).loss
        check_finite(loss.item())
        (scale * loss).backward()
    else:
        hidden = model.get_decoder()(input_ids=tokens, use_cache=False).last_hidden_state
        hidden.backward(loss_gradient(model, hidden.detach(), tokens, scale))


def check_finite(loss: float) -> None:
    """Raise UserError when the loss is not finite."""
    if not math.isfinite(loss):
        raise UserError(f"the calibration loss is {loss}; the base model or its dtype is not usable")


@torch.no_grad()
def loss_gradient(model: PreTrainedModel, hidden: torch.Tensor, tokens: torch.Tensor, scale: float) -> torch.Tensor:
    """Return the gradient, by the last hidden states, of `scale` times the mean next-token loss of `tokens`.

    `hidden` has shape (windows, length, hidden), `tokens` (windows, length). By hand, in float32: the gradient by the
    logits is softmax - onehot and takes their place, the logits of a few windows are held at a time, and the head's
    rows are converted a few at a time. Raises UserError when the loss is not finite.
    """
    head, gradients, (count, length) = Head(model), [], tokens.shape
    scored, parts = count * (length - 1), max(1, TOKENS_OF_LOGITS // length)
    total = 0.0
    for part, labels in zip(hidden.split(parts), tokens.split(parts), strict=True):
        inputs, labels = part[:, :-1].flatten(0, 1).float(), labels[:, 1:].flatten()[:, None]
        weights = head.weight.split(ROWS_OF_HEAD)
        products = inputs.new_empty(len(inputs), len(head.weight))
        for rows, block in zip(weights, products.split(ROWS_OF_HEAD, 1), strict=True):
            torch.mm(inputs, rows.float().T, out=block)
        logits = head.logits(products)
        slope = head.slope(logits)
        logits -= logits.logsumexp(1, keepdim=True)
        total -= logits.gather(1, labels).sum().item() / scored
        steps = logits.exp_().scatter_add_(1, labels, -torch.ones_like(logits[:, :1])).mul_(scale / scored).mul_(slope)
        gradient = sum(each @ rows.float() for each, rows in zip(steps.split(ROWS_OF_HEAD, 1), weights, strict=True))
        gradients.append(F.pad(gradient.view(len(part), length - 1, -1), (0, 0, 0, 1)).to(hidden.dtype))
    check_finite(total)
    return torch.cat(gradients)


def add(sums: dict[torch.Tensor, torch.Tensor], key: torch.Tensor, value: torch.Tensor, share: float) -> None:
    """Add share * value to sums[key]; `value` may be overwritten."""
    if key in sums:
        sums[key].add_(value, alpha=share)
    else:
        sums[key] = value.mul_(share)


@contextmanager
def recomputed(model: PreTrainedModel) -> Iterator[None]:
    """Let a backward pass recompute what lies between a layer's matrix products, and keep their results only.

    The values are the same, and what is computed twice costs next to nothing. Layers whose weights need no gradient,
    above those that are scored, also compute the MLP's first two products anew, which are half of what a layer keeps:
    no more is kept beside the logits than later beside the gradients of the weights. TinyLlama on 10 x 64 tokens in
    float32 holds 0.75 GiB then; it would be 1.8 GiB of all activations.
    """
    parts = Parts(model)
    layers = parts.layers
    # The operators of experts are none of PRODUCTS.
    dense = [] if parts.has_experts else [layer for layer in layers if not parts.mlp(layer).skipped]
    # The last product's result is the next layer's input, which is kept anyway.
    again = [parts.mlp(layer).output.weight for layer in dense]
    for layer in dense:
        if not any(parameter.requires_grad for parameter in layer.parameters()):
            again += [linear.weight for linear in parts.mlp(layer).units]
    places = {weight.data_ptr() for weight in again}

    def policy(_, operator, *operands, **__) -> CheckpointPolicy:
        wanted = operator in PRODUCTS and not any(
            each.data_ptr() in places for each in operands if isinstance(each, torch.Tensor)
        )
        return CheckpointPolicy.MUST_SAVE if wanted else CheckpointPolicy.PREFER_RECOMPUTE

    kept = partial(create_selective_checkpoint_contexts, policy)
    for layer in layers:
        layer.forward = partial(checkpoint, layer.forward, use_reentrant=False, context_fn=kept)
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward
