"""Tune one model: the pruned one, or with the same params the base as control."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from stages.common import processes, resume, training
from stages.common.live import LiveCurves
from stages.common.params import RunParams, load_section
from stages.common.torch_setup import precision, setup_torch
from stages.models.checkpoint import load_model, load_tokenizer
from stages.models.config import check_context, read_config
from stages.models.sharding import load_sharded
from stages.models.surgery import rebuild
from stages.tune import full, lora
from stages.tune.data import FILES, VALIDATION, training_examples, validation_examples
from stages.tune.distillation import Distillation, check_states
from stages.tune.next_token import next_token_loss
from stages.tune.params import TuneParams
from stages.tune.recovery import Objective, recover, warning

BASE, PRUNED = Path("models/base"), Path("models/pruned")
Load = Callable[[Path, torch.device], PreTrainedModel]
METHODS: dict[str, Any] = {"lora": lora, "full": full}
CODE = (Path(__file__).parent, training.__file__, resume.__file__)


class Tuned(NamedTuple):
    """A tuned model, to be saved by the `method` that made it, and then its `state` to be forgotten."""

    model: Any
    tokenizer: PreTrainedTokenizerBase
    method: Any
    progress: training.Progress
    details: dict[str, Any]
    state: Path
    sharded: bool = False


def tune(stage: str, start: Path, params: TuneParams) -> Tuned:
    """Return the model in `start`, tuned; an interrupted run of `stage` is resumed."""
    run = load_section("run", RunParams)
    device = setup_torch(run, params.seed)
    method = METHODS[params.method]
    check_context("tune.window", params.window, read_config(start))
    sharded = run.sharded and processes.size() > 1
    load = load_sharded if sharded else load_model
    model, tokenizer = load(start, device), load_tokenizer(start)
    examples, validation = training_examples(params, tokenizer), validation_examples(params, tokenizer)
    inputs = resume.digest(BASE, start, *FILES[params.data], VALIDATION, *CODE)
    state = resume.state_folder(stage, run.model_dump_json(), params.model_dump_json(), inputs)

    objective = make_objective(model, params, load)
    tuned = method.prepare(model, params)
    record = LiveCurves(stage).update if processes.is_first() else ignore
    progress, metrics = recover(method.trained(tuned), objective, examples, validation, params, state, record)
    if params.removes_units:
        tuned = rebuild(tuned)
    if metrics["held_out_loss_rose"]:
        print(f"espalier: {stage}: {warning(progress)}", file=sys.stderr, flush=True)
    return Tuned(tuned, tokenizer, method, progress, metrics | {"precision": precision()}, state, sharded)


def ignore(progress: training.Progress) -> None:
    """Write no curves: the first process does."""


def make_objective(model: PreTrainedModel, params: TuneParams, load: Load = load_model) -> Objective:
    """Return the objective; the base is loaded, by `load`, only for distillation."""
    if params.objective == "next_token":
        return next_token_loss
    base = load(BASE, model.device)
    check_states(base, model, params.hidden_weight)
    return Distillation(base, params.temperature, params.hidden_weight)
