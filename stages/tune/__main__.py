"""Stage tune: models/pruned -> models/adapter, models/merged, metrics/tune.json, metrics/tune_loss.csv."""

from pathlib import Path

from stages.common import training
from stages.common.checkpoint import load_model, load_tokenizer, save_checkpoint
from stages.common.outputs import staged, write_metrics
from stages.common.params import RunParams, load_section
from stages.common.stage import run_stage
from stages.common.torch_setup import setup_torch
from stages.tune.data import FILES, VALIDATION, training_examples, validation_examples
from stages.tune.lora import add_adapter, merge, save_adapter
from stages.tune.next_token import next_token_loss
from stages.tune.params import TuneParams
from stages.tune.recovery import recover

PRUNED = Path("models/pruned")
CODE = (Path(__file__).parent, training.__file__)


def main() -> None:
    """Recover the pruned model as params.yaml says."""
    params, run = load_section("tune", TuneParams), load_section("run", RunParams)
    device = setup_torch(run, params.seed)
    model, tokenizer = load_model(PRUNED, device), load_tokenizer(PRUNED)
    examples, validation = training_examples(params, tokenizer), validation_examples(params, tokenizer)
    inputs = training.digest(PRUNED, *FILES[params.data], VALIDATION, *CODE)
    state = training.state_folder("tune", run.model_dump_json(), params.model_dump_json(), inputs)

    tuned = add_adapter(model, params)
    progress, metrics = recover(tuned, next_token_loss, examples, validation, params, state)

    with staged("models/adapter") as folder:
        save_adapter(tuned, PRUNED, folder)
    with staged("models/merged") as folder:
        save_checkpoint(merge(tuned), tokenizer, folder)
    training.write_losses("metrics/tune_loss.csv", progress)
    write_metrics("metrics/tune.json", metrics)
    training.forget(state)


if __name__ == "__main__":
    run_stage("tune", main)
