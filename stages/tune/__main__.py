"""Stage tune: models/pruned -> models/adapter, models/merged, metrics/details/tune.json, metrics/tune_loss.csv."""

import sys
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from stages.common import resume, training
from stages.common.checkpoint import load_model, load_tokenizer, save_checkpoint
from stages.common.outputs import staged, write_details
from stages.common.params import RunParams, load_section
from stages.common.stage import run_stage
from stages.common.torch_setup import setup_torch
from stages.tune import full, lora
from stages.tune.data import FILES, VALIDATION, training_examples, validation_examples
from stages.tune.distillation import Distillation, check_states
from stages.tune.next_token import next_token_loss
from stages.tune.params import TuneParams
from stages.tune.recovery import Objective, recover, warning

BASE, PRUNED = Path("models/base"), Path("models/pruned")
METHODS: dict[str, Any] = {"lora": lora, "full": full}
CODE = (Path(__file__).parent, training.__file__, resume.__file__)


def main() -> None:
    """Recover the pruned model as params.yaml says."""
    params, run = load_section("tune", TuneParams), load_section("run", RunParams)
    device = setup_torch(run, params.seed)
    method = METHODS[params.method]
    model, tokenizer = load_model(PRUNED, device), load_tokenizer(PRUNED)
    examples, validation = training_examples(params, tokenizer), validation_examples(params, tokenizer)
    inputs = resume.digest(BASE, PRUNED, *FILES[params.data], VALIDATION, *CODE)
    state = resume.state_folder("tune", run.model_dump_json(), params.model_dump_json(), inputs)

    objective = make_objective(model, params)
    tuned = method.prepare(model, params)
    progress, metrics = recover(method.trained(tuned), objective, examples, validation, params, state)
    if metrics["held_out_loss_rose"]:
        print(f"espalier: tune: {warning(progress)}", file=sys.stderr, flush=True)

    with staged("models/adapter") as folder:
        method.save_adapter(tuned, PRUNED, folder)
    with staged("models/merged") as folder:
        save_checkpoint(method.merge(tuned), tokenizer, folder)
    training.write_losses("metrics/tune_loss.csv", progress)
    write_details("metrics/details/tune.json", metrics)
    resume.forget(state)


def make_objective(model: PreTrainedModel, params: TuneParams) -> Objective:
    """Return what is trained for; the base is read only to be distilled from."""
    if params.objective == "next_token":
        return next_token_loss
    base = load_model(BASE, model.device)
    check_states(base, model, params.hidden_weight)
    return Distillation(base, params.temperature, params.hidden_weight)


if __name__ == "__main__":
    run_stage("tune", main)
