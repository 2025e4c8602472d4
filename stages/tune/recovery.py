"""Train a model's trainable parameters on examples and measure it."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import fmean

import torch
from transformers import PreTrainedModel

from stages.common import processes
from stages.common.progress import Bar
from stages.common.torch_setup import arithmetic
from stages.common.training import Plan, Progress, train
from stages.tune.batches import Batches, collate, split
from stages.tune.examples import Example, loss_tokens
from stages.tune.gradual import Pruning, WeightPruning
from stages.tune.next_token import next_token_loss
from stages.tune.params import TuneParams, check_shares
from stages.tune.unit_pruning import UnitPruning

Objective = Callable[[PreTrainedModel, torch.Tensor, torch.Tensor], torch.Tensor]
SEEDS_APART = 1_000_000_007**2  # of a step's micro-batches, far from those of other steps
RISE = 0.01  # nats per token: a held-out loss that rises by less is taken for noise


def recover(
    model: PreTrainedModel,
    objective: Objective,
    examples: list[Example],
    validation: list[Example],
    params: TuneParams,
    state_folder: Path,
    record: Callable[[Progress], None] = lambda progress: None,
) -> tuple[Progress, dict[str, int | float]]:
    """Train the parameters of `model` that require gradients, in place; return the progress and the metrics.

    Units that gradual pruning removes are gone from the model's matrices then, but not from its config.

    Losses are means over loss tokens, in nats, without dropout: the objective's over as many training examples as the
    validation has, the same before and after; that of the validation is always of the next token, so that what
    pruning lost is the measure of every objective. `record` gets the progress after every step.
    """
    check_shares(params, processes.size())
    if params.gradient_checkpointing:
        model.activation_checkpointing_enable({"use_reentrant": False})
    parameters: dict[str, torch.Tensor] = {
        name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad
    }
    optimizer = torch.optim.AdamW(parameters.values(), lr=params.learning_rate, weight_decay=0.0, fused=True)
    pruning = gradual_pruning(model, optimizer, params)
    batches = Batches([len(example.tokens) for example in examples], params.batch_size, params.seed)
    order = torch.randperm(len(examples), generator=torch.Generator().manual_seed(params.seed))
    sample = [examples[index] for index in order[: len(validation)].tolist()]

    def backward(step: int) -> float:
        model.train()
        batch = [examples[index] for index in batches.at(step)]
        loss = backward_mean(model, objective, batch, params.micro_batch_size)
        processes.add_up_gradients(list(parameters.values()))
        pruning.after_backward()
        return loss

    def measure(some: list[Example], loss: Objective, description: str) -> float:
        model.eval()
        return mean_loss(model, loss, some, params.micro_batch_size, description)

    before = measure(sample, objective, "training loss before")
    best_from = max(1, params.schedule.end) if params.schedule else 0
    plan = Plan(params.steps, params.warmup_steps, params.validate_every, params.seed, best_from=best_from)
    validate = partial(measure, validation, next_token_loss, "held-out loss")
    progress = train(
        parameters, [optimizer], backward, validate, plan, state_folder, "tune", record, pruning.cut, pruning.carried
    )
    trained = sum(parameter.numel() for parameter in parameters.values())
    pruned = pruning.finish()
    metrics = {
        "trainable_parameters": trained,
        **seen(examples, batches, params),
        "best_step": progress.best_step,
        "train_loss_before": before,
        "train_loss_after": measure(sample, objective, "training loss after"),
        "validation_loss_before": progress.validation_loss[0],
        "validation_loss_after": progress.validation_loss[progress.best_step],
        "held_out_loss_rose": int(held_out_loss_rose(progress)),
        **pruned,
    }
    return progress, metrics


def gradual_pruning(model: PreTrainedModel, optimizer: torch.optim.Optimizer, params: TuneParams) -> Pruning:
    """Return what `params` prune while `model` trains."""
    if params.schedule is None:
        return Pruning()
    structure = UnitPruning if params.removes_units else WeightPruning
    return structure(model, optimizer, params.schedule)


def held_out_loss_rose(progress: Progress) -> bool:
    """Return whether, after its best step, the held-out loss rose for good while the training loss fell."""
    rise = progress.validation_loss[progress.step] - progress.validation_loss[progress.best_step]
    since = progress.train_loss[progress.best_step :]
    half = max(1, len(since) // 2)
    return rise > RISE and fmean(since[-half:]) < fmean(since[:half])


def warning(progress: Progress) -> str:
    """Return one line on the meaning of a rising held-out loss and its consequence."""
    best, last = progress.best_step, progress.step
    losses = progress.validation_loss
    return (
        f"the held-out loss rose from {losses[best]:.4f} (step {best}) to {losses[last]:.4f} (step {last}) while the "
        f"training loss fell: what is learnt is not what pruning lost; step {best} is kept. "
        "Try tune.data: text, tune.objective: distillation, or a lower tune.learning_rate"
    )


def backward_mean(model: PreTrainedModel, objective: Objective, batch: list[Example], micro_batch_size: int) -> float:
    """Add the gradient of the batch's mean loss over its loss tokens; return that loss.

    Each micro-batch counts by its tokens, so the result does not depend on `micro_batch_size`. Of several processes,
    each adds the gradients of its own micro-batches; dropout is that of one process.
    """
    count = sum(map(loss_tokens, batch))
    seed, losses = torch.initial_seed(), []
    for number, part in processes.share(list(enumerate(split(batch, micro_batch_size)))):
        torch.manual_seed((seed + number * SEEDS_APART) % 2**63)
        loss = part_loss(model, objective, part) / count
        loss.backward()
        losses.append(loss.item())
    return sum(processes.collect(losses))


@torch.no_grad()
def mean_loss(
    model: PreTrainedModel, objective: Objective, examples: list[Example], size: int, description: str = "loss"
) -> float:
    """Return the mean loss over the loss tokens of `examples`, `size` sequences at a time."""
    losses, tokens, every = [], 0, split(examples, size)
    parts = processes.share(every)
    with Bar(description, len(parts)) as bar:
        for part in parts:
            losses.append(part_loss(model, objective, part).item())
            tokens += sum(map(loss_tokens, part))
            bar.advance(measured=f"loss {sum(losses) / tokens:.3f}")
    if len(parts) * processes.size() < len(every):  # sharded weights take all processes for every pass
        part_loss(model, objective, every[0])
    return sum(processes.collect(losses)) / sum(map(loss_tokens, examples))


def part_loss(model: PreTrainedModel, objective: Objective, examples: list[Example]) -> torch.Tensor:
    """Return the summed loss of one forward pass."""
    tokens, labels = (tensor.to(model.device) for tensor in collate(examples))
    with arithmetic():
        return objective(model, tokens, labels)


def seen(examples: list[Example], batches: Batches, params: TuneParams) -> dict[str, int | float]:
    """Return the amount of training data seen: sequences, tokens, tokens with a loss, and the share of padding."""
    learnt = [loss_tokens(example) for example in examples]
    tokens = learnt_tokens = cells = 0
    for step in range(params.steps):
        batch = batches.at(step)
        tokens += sum(batches.lengths[index] for index in batch)
        learnt_tokens += sum(learnt[index] for index in batch)
        for part in split(batch, params.micro_batch_size):
            cells += len(part) * max(batches.lengths[index] for index in part)
    return {
        "sequences_available": len(examples),
        "sequences_seen": params.steps * params.batch_size,
        "tokens_seen": tokens,
        "loss_tokens_seen": learnt_tokens,
        "padding_share": 1 - tokens / cells,
    }
