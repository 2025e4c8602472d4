"""Stage tune: models/pruned -> models/adapter, models/merged, metrics/details/tune.json and the curves.

The curves are metrics/live/tune while it trains, then metrics/tune_loss.csv too.
"""

from stages.common import processes
from stages.common.launch import run_parallel_stage
from stages.common.outputs import staged, write_details
from stages.common.params import load_section
from stages.common.resume import forget
from stages.common.training import write_losses
from stages.tune.merging import save_merged
from stages.tune.params import TuneParams
from stages.tune.tuning import PRUNED, tune


def main() -> None:
    """Recover the pruned model as params.yaml says."""
    tuned = tune("tune", PRUNED, load_section("tune", TuneParams))
    if not processes.is_first():
        return
    with staged("models/adapter") as folder:
        tuned.method.save_adapter(tuned.model, PRUNED, folder)
    with staged("models/merged") as folder:
        save_merged(tuned, PRUNED, folder)
    write_losses("metrics/tune_loss.csv", tuned.progress)
    write_details("metrics/details/tune.json", tuned.details)
    forget(tuned.state)


if __name__ == "__main__":
    run_parallel_stage("tune", main)
