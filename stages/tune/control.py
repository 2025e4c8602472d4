"""Stage control: models/base, tuned as the pruned model is -> models/control, metrics/[[details|live]/]control*.

The gain of the tuned base is adaptation to the text; only what the pruned model gains beyond it is recovery. Without
`tune.control` the outputs are empty, and neither torch nor a model is loaded.
"""

from stages.common.launch import run_parallel_stage
from stages.common.live import LiveCurves
from stages.common.outputs import staged, write_details
from stages.common.params import load_section
from stages.tune.params import TuneParams

MODEL, LOSSES, DETAILS = "models/control", "metrics/control_loss.csv", "metrics/details/control.json"


def main() -> None:
    """Tune the base as params.yaml says, or write empty outputs."""
    params = load_section("tune", TuneParams)
    if params.control:
        tune_base(params)
        return
    with staged(MODEL) as folder:
        folder.mkdir()
        (folder / "README.md").write_text("Empty: tune.control is false\n", encoding="utf-8")
    with staged(LOSSES) as file:
        file.write_text("step,split,loss\n", encoding="utf-8")
    LiveCurves("control")
    write_details(DETAILS, {})


def tune_base(params: TuneParams) -> None:
    """Write the base, tuned."""
    from stages.common import processes
    from stages.common.resume import forget
    from stages.common.training import write_losses
    from stages.tune.merging import save_merged
    from stages.tune.tuning import BASE, tune

    dense = params.sparsity.model_copy(update={"ratio": None})  # what the zeros cost is part of what pruning loses
    tuned = tune("control", BASE, params.model_copy(update={"sparsity": dense}))
    if not processes.is_first():
        return
    with staged(MODEL) as folder:
        save_merged(tuned, BASE, folder)
    write_losses(LOSSES, tuned.progress)
    write_details(DETAILS, tuned.details)
    forget(tuned.state)


def is_wanted() -> bool:
    """Return whether the base is to be tuned."""
    return load_section("tune", TuneParams).control


if __name__ == "__main__":
    run_parallel_stage("control", main, is_wanted)
