"""python benchmarks/study.py: the cost of the demo study against separate cold runs of its variants.

In a clone with an empty cache, by the sweep itself, one experiment at a time: the base, one pruned variant, and the
same one tuned. A cold run of a variant makes all it needs by itself; the study makes the base once.
"""

import contextlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tabulate import tabulate

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from studies.executors.local import LocalExecutor
from studies.experiments import baseline
from studies.progress import Progress
from studies.study import Study, Variant, load_study
from studies.sweep import Sweep

STUDY = Path("studies/demo.yaml")


def measure(study: Study) -> dict[tuple[str, ...], float]:
    """Return the seconds of an experiment with the base alone, with a pruned and with a tuned model, from nothing."""
    tuned = next(variant for variant in study.variants if variant.models[-1] == "tuned")
    pruned = study.needs(tuned)
    assert pruned is not None
    parts = Study(study.name, study.bases, [pruned, tuned])
    progress = Progress(len(parts.experiments), 1)
    Sweep(parts, LocalExecutor(parts, baseline(), 1, []), progress).run()
    return {models: seconds for models, (seconds,) in progress.seconds.items()}


def costs(variants: list[Variant], seconds: dict[tuple[str, ...], float]) -> tuple[float, float]:
    """Return the seconds of separate cold runs of the variants, and of the study that shares what they share."""
    base, pruned, tuned = (seconds[models] for models in (("base",), ("base", "pruned"), ("base", "pruned", "tuned")))
    cold = {"pruned": base + pruned, "tuned": base + pruned + tuned}
    shared = {"pruned": pruned, "tuned": tuned}
    last = [variant.models[-1] for variant in variants]
    return sum(cold[model] for model in last), base + sum(shared[model] for model in last)


def main() -> None:
    """Print the table."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["git", "clone", "-q", ".", folder], check=True)
        with contextlib.chdir(folder):
            study = load_study(STUDY)
            seconds = measure(study)
    separate, shared = costs(study.variants, seconds)
    rows = [
        *((f"one experiment: {', '.join(models)}", f"{each:.0f}", "") for models, each in seconds.items()),
        (f"{len(study.variants)} variants, separate cold runs", f"{separate:.0f}", f"{separate / 60:.1f}"),
        (f"{len(study.variants)} variants, one study", f"{shared:.0f}", f"{shared / 60:.1f}"),
    ]
    print(tabulate(rows, ["", "seconds", "minutes"], colalign=["left", "right", "right"], disable_numparse=True))
    print(f"\nthe study costs {100 * shared / separate:.0f} % of the separate runs; {os.cpu_count()} cores, one job")


if __name__ == "__main__":
    main()
