"""The training loop that the base, the recovery and full fine-tuning share.

A step is a function of its number alone: data order and dropout are drawn from (seed, step). So a run that was killed
continues from its last saved state and ends with the same bytes as one that was not.
"""

import csv
import hashlib
import json
import math
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from tqdm import tqdm

from stages.common.errors import UserError
from stages.common.outputs import staged

SAVE_EVERY_SECONDS = 15
STATE_FILE = "state.safetensors"


@dataclass(frozen=True)
class Plan:
    """How long and how fast to train: `steps` optimizer steps, linear warm-up, then cosine decay to zero."""

    steps: int
    warmup_steps: int
    validate_every: int
    seed: int
    clip_norm: float = 1.0

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
) -> Progress:
    """Train `parameters` in place for `plan.steps` steps and leave them at their best validation loss.

    `backward(step)` adds the gradients of that step's batch and returns its loss. The first group of the first
    optimizer carries the peak rate that params.yaml calls `<name>.learning_rate`. State is kept in `state_folder` and
    removed by the caller once the result is safe. Raises UserError on a loss or gradient that is not finite.
    """
    peaks = [[group["lr"] for group in optimizer.param_groups] for optimizer in optimizers]
    diverged = f"{name}.learning_rate = {peaks[0][0]:g} is too high: {{}}; allowed: a rate that keeps it finite"
    progress, best = restore(parameters, optimizers, state_folder)
    if not best:
        progress.validation_loss[0] = validate()
        best = snapshot(parameters)
        if not math.isfinite(progress.validation_loss[0]):
            raise UserError(
                f"{name}: the validation loss is {progress.validation_loss[0]} before the first step; "
                "allowed: a model and data that give a finite one"
            )
    saved = time.monotonic()
    steps = range(progress.step, plan.steps)
    for step in tqdm(steps, desc=name, initial=progress.step, total=plan.steps, mininterval=1):
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
        progress.train_loss.append(loss)
        if progress.step % plan.validate_every == 0 or progress.step == plan.steps:
            measured = validate()
            if not math.isfinite(measured):
                raise UserError(diverged.format(f"the validation loss is {measured} after step {progress.step}"))
            if measured < min(progress.validation_loss.values()):
                progress.best_step, best = progress.step, snapshot(parameters)
            progress.validation_loss[progress.step] = measured
        if time.monotonic() - saved > SAVE_EVERY_SECONDS:
            save(progress, parameters, best, optimizers, state_folder)
            saved = time.monotonic()
    with torch.no_grad():
        for key, value in parameters.items():
            value.copy_(best[key])
    return progress


def snapshot(parameters: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return a copy of the parameters' values."""
    return {key: value.detach().clone() for key, value in parameters.items()}


def save(
    progress: Progress,
    parameters: dict[str, torch.Tensor],
    best: dict[str, torch.Tensor],
    optimizers: list[torch.optim.Optimizer],
    folder: Path,
) -> None:
    """Write the whole state of a run as one safetensors file, replaced in one move."""
    tensors = {f"parameter.{key}": value for key, value in parameters.items()}
    tensors |= {f"best.{key}": value for key, value in best.items()}
    for number, optimizer in enumerate(optimizers):
        for index, state in optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{number}.{index}.{key}": value for key, value in state.items()}
    folder.mkdir(parents=True, exist_ok=True)
    # The process in the name: two experiments that share this stage's inputs may run it at the same time.
    temporary = folder / f"{os.getpid()}.partial"
    try:
        contiguous = {key: value.detach().contiguous() for key, value in tensors.items()}
        save_file(contiguous, temporary, metadata={"progress": json.dumps(vars(progress))})
        temporary.replace(folder / STATE_FILE)
    finally:
        temporary.unlink(missing_ok=True)


def restore(
    parameters: dict[str, torch.Tensor], optimizers: list[torch.optim.Optimizer], folder: Path
) -> tuple[Progress, dict[str, torch.Tensor]]:
    """Load what `save` wrote, if anything, and return (progress, best parameters so far)."""
    file = folder / STATE_FILE
    if not file.is_file():
        return Progress(), {}
    with safe_open(file, framework="pt") as state:
        recorded = json.loads(state.metadata()["progress"])
        # Cloned: memory of our own, aligned as it was, instead of a map of the file that `save` will replace.
        tensors = {name: state.get_tensor(name).clone() for name in state.keys()}  # noqa: SIM118 - not a dict
    with torch.no_grad():
        for key, value in parameters.items():
            value.copy_(tensors[f"parameter.{key}"])
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


def state_folder(stage: str, *inputs: str) -> Path:
    """Return where a run of `stage` keeps its state: outside DVC's outputs, keyed by a hash of the inputs.

    It lives under the outermost .dvc/tmp, so that a queued experiment, whose workspace is a folder inside .dvc/tmp
    that dies with it, finds the state again.
    """
    key = hashlib.sha256("\n".join(inputs).encode()).hexdigest()[:16]
    here = Path.cwd()
    root = next((folder for folder in reversed([here, *here.parents]) if (folder / ".dvc").is_dir()), here)
    return root / ".dvc" / "tmp" / "resume" / f"{stage}-{key}"


def digest(*paths: str | Path) -> str:
    """Return a hash of what files and the files in folders hold, for `state_folder`; compiled Python left out."""
    total = hashlib.sha256()
    for path in map(Path, paths):
        files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
        for file in files:
            if file.suffix != ".pyc":
                with file.open("rb") as content:
                    total.update(file.name.encode() + b"\0" + hashlib.file_digest(content, "sha256").digest())
    return total.hexdigest()


def forget(folder: Path) -> None:
    """Remove a run's state after its result is safe."""
    shutil.rmtree(folder, ignore_errors=True)


def write_losses(path: str | Path, progress: Progress, every: int = 1) -> None:
    """Write the loss curves as CSV: step, split (train | validation), loss (nats per token).

    A row of the training curve is the mean of the `every` steps up to it.
    """
    losses = progress.train_loss
    train = [(end, "train", sum(losses[end - every : end]) / every) for end in range(every, len(losses) + 1, every)]
    validation = [(step, "validation", loss) for step, loss in progress.validation_loss.items()]
    with staged(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerows([("step", "split", "loss"), *train, *validation])
