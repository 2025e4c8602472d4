"""The training loop that the base, the recovery and full fine-tuning share.

A step is a function of its number alone: data order and dropout are drawn from (seed, step). So a run that was killed
continues from its last saved state and ends with the same bytes as one that was not.
"""

import csv
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

import torch

from stages.common import processes
from stages.common.errors import UserError
from stages.common.live import means
from stages.common.outputs import staged
from stages.common.progress import Bar
from stages.common.resume import read_state, write_state

SAVE_EVERY_SECONDS = 15
SHOWN_STEPS = 20  # whose mean loss the progress bar shows
STATE_FILE = "state.safetensors"
NOTHING: Mapping[str, torch.Tensor] = MappingProxyType({})


@dataclass(frozen=True)
class Plan:
    """How long and how fast to train: `steps` optimizer steps, linear warm-up, then cosine decay to zero.

    A model of fewer than `best_from` steps is not kept as the best one.
    """

    steps: int
    warmup_steps: int
    validate_every: int
    seed: int
    clip_norm: float = 1.0
    best_from: int = 0

    def rate(self, step: int) -> float:
        """Return the share of the peak learning rate at `step` (0-based)."""
        if step < self.warmup_steps:
            return (step + 1) / self.warmup_steps
        progress = (step - self.warmup_steps) / max(1, self.steps - self.warmup_steps)
        return 0.5 * (1 + math.cos(math.pi * progress))


@dataclass
class Progress:
    """What a run has reached: enough, with the optimizers' state, to go on from there."""

    step: int = 0
    train_loss: list[float] = field(default_factory=list)  # one per step, nats per token
    validation_loss: dict[int, float] = field(default_factory=dict)  # after that many steps; 0: before the first
    best_step: int = 0  # 0: no step made the validation loss better


def train(
    parameters: dict[str, torch.Tensor],
    optimizers: list[torch.optim.Optimizer],
    backward: Callable[[int], float],
    validate: Callable[[], float],
    plan: Plan,
    state_folder: Path,
    name: str,
    record: Callable[[Progress], None] = lambda progress: None,
    after_step: Callable[[int], None] = lambda step: None,
    carried: Mapping[str, torch.Tensor] = NOTHING,
) -> Progress:
    """Train `parameters` in place for `plan.steps` steps and leave them at their best validation loss.

    `backward(step)` adds the gradients of that step's batch and returns its loss. The first group of the first
    optimizer carries the peak rate that params.yaml calls `<name>.learning_rate`. `record` gets what is reached, first
    what a saved state holds, then after every step. `after_step` gets the number of steps taken, first 0, and may
    change the parameters, as a function of them, the optimizers' state, `carried` and that number only. `carried` are
    tensors that it and `backward` change in place, and that are saved with the parameters. State is kept in
    `state_folder` and removed by the caller once the result is safe. Raises UserError on a loss or gradient that is not
    finite.
    """
    peaks = [[group["lr"] for group in optimizer.param_groups] for optimizer in optimizers]
    diverged = f"{name}.learning_rate = {peaks[0][0]:g} is too high: {{}}; lower it"
    progress, best = restore(parameters, optimizers, state_folder, carried)
    with Bar(name, plan.steps, progress.step) as bar:
        if not progress.validation_loss:
            progress.validation_loss[0] = validate()
            best = snapshot(parameters) if plan.best_from == 0 else {}
            if not math.isfinite(progress.validation_loss[0]):
                raise UserError(
                    f"{name}: the validation loss is {progress.validation_loss[0]} before the first step; "
                    "check the model's weights and the data"
                )
            after_step(0)
        record(progress)
        saved = time.monotonic()
        for step in range(progress.step, plan.steps):
            for optimizer, rates in zip(optimizers, peaks, strict=True):
                for group, peak in zip(optimizer.param_groups, rates, strict=True):
                    group["lr"] = peak * plan.rate(step)
            torch.manual_seed(plan.seed * 1_000_003 + step)
            loss = backward(step)
            norm = float(torch.nn.utils.clip_grad_norm_(parameters.values(), plan.clip_norm))
            if not (math.isfinite(loss) and math.isfinite(norm)):
                raise UserError(diverged.format(f"the loss is {loss}, its gradient's norm {norm}, at step {step + 1}"))
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
            progress.step = step + 1
            after_step(progress.step)
            progress.train_loss.append(loss)
            if progress.step % plan.validate_every == 0 or progress.step == plan.steps:
                measured = validate()
                if not math.isfinite(measured):
                    raise UserError(diverged.format(f"the validation loss is {measured} after step {progress.step}"))
                progress.validation_loss[progress.step] = measured
                if is_best(progress, plan.best_from):
                    progress.best_step, best = progress.step, snapshot(parameters)
            record(progress)
            bar.advance(measured=losses_so_far(progress))
            if processes.is_first() and time.monotonic() - saved > SAVE_EVERY_SECONDS:
                save(progress, parameters, best, optimizers, state_folder, carried)
                saved = time.monotonic()
    with torch.no_grad():
        for key, value in parameters.items():
            value.copy_(best[key])
    return progress


def is_best(progress: Progress, best_from: int) -> bool:
    """Return whether the latest validation loss is lower than all before it, of those after `best_from` steps."""
    *earlier, latest = [loss for step, loss in progress.validation_loss.items() if step >= best_from] or [math.inf]
    return latest < min(earlier, default=math.inf)


def losses_so_far(progress: Progress) -> str:
    """Return the latest losses for the progress bar; for training their mean, since a single batch's is noisy."""
    recent = progress.train_loss[-SHOWN_STEPS:]
    (*_, held_out) = progress.validation_loss.values()
    return f"loss {sum(recent) / len(recent):.3f}, held-out {held_out:.3f}"


def snapshot(parameters: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return a copy of the parameters' values."""
    return {key: value.detach().clone() for key, value in parameters.items()}


def save(
    progress: Progress,
    parameters: dict[str, torch.Tensor],
    best: dict[str, torch.Tensor],
    optimizers: list[torch.optim.Optimizer],
    folder: Path,
    carried: Mapping[str, torch.Tensor] = NOTHING,
) -> None:
    """Write the whole state of a run."""
    tensors = {f"parameter.{key}": value for key, value in parameters.items()}
    tensors |= {f"best.{key}": value for key, value in best.items()}
    tensors |= {f"carried.{key}": value for key, value in carried.items()}
    for number, optimizer in enumerate(optimizers):
        for index, state in optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{number}.{index}.{key}": value for key, value in state.items()}
    write_state(folder / STATE_FILE, vars(progress), tensors)


def restore(
    parameters: dict[str, torch.Tensor],
    optimizers: list[torch.optim.Optimizer],
    folder: Path,
    carried: Mapping[str, torch.Tensor] = NOTHING,
) -> tuple[Progress, dict[str, torch.Tensor]]:
    """Load the state that `save` wrote, if any, and return (progress, best parameters so far)."""
    state = read_state(folder / STATE_FILE)
    if state is None:
        return Progress(), {}
    recorded, tensors = state
    with torch.no_grad():
        for key, value in parameters.items():
            value.copy_(tensors[f"parameter.{key}"])
        for key, value in carried.items():
            value.copy_(tensors[f"carried.{key}"])
    for number, optimizer in enumerate(optimizers):
        state_dict = optimizer.state_dict()
        for name, value in tensors.items():
            if name.startswith(f"optimizer.{number}."):
                index, key = name.split(".")[2:]
                state_dict["state"].setdefault(int(index), {})[key] = value
        optimizer.load_state_dict(state_dict)
    best = {name.removeprefix("best."): value for name, value in tensors.items() if name.startswith("best.")}
    recorded["validation_loss"] = {int(step): loss for step, loss in recorded["validation_loss"].items()}
    return Progress(**recorded), best


def write_losses(path: str | Path, progress: Progress, every: int = 1) -> None:
    """Write the loss curves as CSV: step, split (train | validation), loss (nats per token).

    A row of the training curve is the mean of the `every` steps up to it.
    """
    train = [(step, "train", loss) for step, loss in means(progress.train_loss, every)]
    validation = [(step, "validation", loss) for step, loss in progress.validation_loss.items()]
    with staged(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerows([("step", "split", "loss"), *train, *validation])
