"""Fisher: the allocation of least summed loss, each module's loss predicted from one backward pass.

What `sensitivity` measures by running the rest of the model is, to second order, 1/2 E[(g . d)^2] in nats per token: d
is the change of the module's output at a token, g the gradient there of the log-likelihood of a token drawn from the
dense model's own distribution. That is the Fisher matrix as the curvature of the divergence (Martens 2020), sampled as
for pruning by LLM Surgeon (van der Ouderaa et al. 2024), with the products between tokens left out.
"""

from collections.abc import Collection

import torch
from transformers import PreTrainedModel

from stages.common.progress import progress
from stages.common.torch_setup import arithmetic
from stages.models.parts import Head, Parts
from stages.prune.activations import Activations
from stages.prune.block.allocation.sensitivity import Loss, Sensitivity, losses_by_level
from stages.prune.block.divergence import first_windows
from stages.prune.block.task import Task
from stages.prune.inputs import Inputs
from stages.prune.memory import return_freed_memory

DRAWS = 2  # tokens drawn at each position
TOKENS_OF_LOGITS = 256  # a vocabulary is many times as wide as a layer


class Fisher(Sensitivity):
    def losses(self, task: Task) -> list[dict[int, float]]:
        """Return for every module the predicted loss by the number of units removed from it alone."""
        wanted: set[tuple[int, str]] = {(module.layer, module.kind) for module in task.modules}
        gradients = output_gradients(task.model, first_windows(task.windows), task.params.seed, wanted)
        return losses_by_level(
            task,
            self.tried(task),
            lambda inputs: predicted_loss(inputs, gradients[inputs.matrices.layer, inputs.matrices.kind]),
        )


@torch.no_grad()
def predicted_loss(inputs: Inputs, gradients: torch.Tensor) -> Loss:
    """Return the function that predicts the loss of what the matrix that reads `inputs` has become by then.

    `gradients` are those of the half's output, shape (draws, tokens, hidden), on the first tokens of the windows.
    """
    output, tokens = inputs.linear, gradients.shape[1]
    read, places = inputs.first(tokens)
    gradients, dense = gradients[:, places], output.weight.detach().clone()
    bias = None if output.bias is None else output.bias.detach().clone()

    def loss() -> float:
        difference = (output.weight - dense).float().T
        change = torch.cat([x.float() @ difference for x in read])[:tokens]
        if bias is not None and output.bias is not None:
            change += (output.bias - bias).float()
        products = torch.stack([(draw * change).sum(-1) for draw in gradients])  # a draw at a time: less memory
        return 0.5 * products.square().mean().item() * len(change) / tokens if len(change) else 0.0

    return torch.no_grad()(loss)


def output_gradients(
    model: PreTrainedModel, windows: torch.Tensor, seed: int, wanted: Collection[tuple[int, str]]
) -> dict[tuple[int, str], torch.Tensor]:
    """Return by layer and half, for `wanted`, the gradients of the log-likelihood at its output.

    They are in bfloat16, shape (draws, tokens, hidden). Layer by layer from the last one: the forward pass keeps each
    layer's input, from which the layer is computed again. All gradients together are the largest thing held: bfloat16
    halves them, and its error of 0.4 % is far below that of two draws.
    """
    activations = Activations(model, windows)
    inputs = [torch.cat(activations.hidden)]
    for layer in progress(range(len(activations.layers)), "forward pass"):
        activations.go_to(layer + 1)
        inputs.append(torch.cat(activations.hidden))
    slopes, result = sampled_slopes(model, inputs.pop(), seed), {}
    for layer in progress(range(len(activations.layers))[::-1], "backward pass"):
        stream = inputs.pop().requires_grad_()
        with torch.enable_grad(), arithmetic():
            outputs, end = outputs_of(activations, layer, stream)
        rows = [torch.autograd.grad(end, (*outputs.values(), stream), each, retain_graph=True) for each in slopes]
        *found, slopes = (torch.stack(each) for each in zip(*rows, strict=True))
        for kind, gradients in zip(outputs, found, strict=True):
            if (layer, kind) in wanted:
                result[layer, kind] = gradients.flatten(1, -2).bfloat16()  # OPT's MLP flattens tokens
        del stream, outputs, end, rows, found, gradients  # a layer's graph leaves holes among what is kept
        return_freed_memory()
    return result


def outputs_of(
    activations: Activations, layer: int, stream: torch.Tensor
) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """Return what the output matrices of the layer's halves put out, by kind, and what the layer does."""
    caught: dict[str, torch.Tensor] = {}
    module, parts = activations.layers[layer], activations.parts
    hooks = [
        half.output.register_forward_hook(lambda _, args, output, kind=kind: caught.update({kind: output}))
        for kind, half in (("attention", parts.attention(module)), ("mlp", parts.second(module)))
    ]
    try:
        end = module(stream, **activations.settings[layer])
    finally:
        for hook in hooks:
            hook.remove()
    return caught, end


def sampled_slopes(model: PreTrainedModel, hidden: torch.Tensor, seed: int) -> torch.Tensor:
    """Return the gradients of the log-likelihood of drawn tokens by the last layer's output, (draws, *hidden.shape).

    `hidden`, (windows, length, hidden), is that output. By the logits the gradient is onehot - softmax.
    """
    generator = torch.Generator(hidden.device).manual_seed(seed)
    leaf, head = hidden.detach().requires_grad_(), Head(model)
    with torch.enable_grad():
        normed = Parts(model).last_norm(leaf)
    by_head = []
    with torch.no_grad():
        for states in normed.flatten(0, 1).split(TOKENS_OF_LOGITS):
            logits = head(states).float()
            probabilities, slope = logits.softmax(-1), torch.as_tensor(head.slope(logits), device=logits.device)
            drawn = torch.multinomial(probabilities, DRAWS, replacement=True, generator=generator)
            mean = ((probabilities * slope).to(head.weight.dtype) @ head.weight)[:, None]
            steep = slope.expand_as(logits).gather(1, drawn)[..., None].to(head.weight.dtype)
            by_head.append(head.weight[drawn] * steep - mean)
    goals = torch.cat(by_head).transpose(0, 1).reshape(DRAWS, *hidden.shape)
    return torch.stack([torch.autograd.grad(normed, leaf, each, retain_graph=True)[0] for each in goals])
