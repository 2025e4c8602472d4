"""Stage tune: models/pruned -> models/adapter, models/merged, metrics/details/tune.json and the curves.

The curves are metrics/live/tune while it trains, then metrics/tune_loss.csv too.
"""

from stages.common.outputs import staged, write_details
from stages.common.params import load_section
from stages.common.resume import forget
from stages.common.stage import run_stage
from stages.common.training import write_losses
from stages.models.checkpoint import save_checkpoint
from stages.tune.params import TuneParams
from stages.tune.tuning import PRUNED, tune


def main() -> None:
    """Recover the pruned model as params.yaml says."""
    tuned = tune("tune", PRUNED, load_section("tune", TuneParams))
    with staged("models/adapter") as folder:
        tuned.method.save_adapter(tuned.model, PRUNED, folder)
    with staged("models/merged") as folder:
        save_checkpoint(tuned.method.merge(tuned.model), tuned.tokenizer, folder)
    write_losses("metrics/tune_loss.csv", tuned.progress)
    write_details("metrics/details/tune.json", tuned.details)
    forget(tuned.state)


if __name__ == "__main__":
    run_stage("tune", main)
