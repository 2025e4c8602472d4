"""Training curves while they grow, in DVCLive's format, for `dvc plots` and DVC's extension of VS Code.

The package dvclive would open the git repository in a training process and post to DVC Studio where a token is set. It
only appends, but our saved state is up to 15 seconds old, so a resumed run would log steps twice.
"""

import csv
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages.common.outputs import staged

if TYPE_CHECKING:  # stage control writes empty curves without torch
    from stages.common.training import Progress

FOLDER = Path("metrics/live")
TRAIN, VALIDATION, PERPLEXITY = "train/loss", "validation/loss", "validation/ppl"
Rows = list[tuple[int, float]]  # steps and values


class LiveCurves:
    """The curves of one training, each a file that grows, and the latest values in metrics.json.

    Losses are in nats per token. A point of the training curve is the mean of the `every` steps up to it.
    """

    def __init__(self, stage: str, every: int = 1):
        """Write curves without a point in place of what was there; a resumed training writes its first steps again."""
        self.folder, self.every = FOLDER / stage, every
        self.written = dict.fromkeys((TRAIN, VALIDATION, PERPLEXITY), 0)
        self.latest: dict[str, Any] = {}
        for name in self.written:
            file = self.file(name)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(f"step\t{file.stem}\n", encoding="utf-8")
        self.summarise()

    def update(self, progress: "Progress") -> None:
        """Add the points that `progress` has and the files lack."""
        held_out = list(progress.validation_loss.items())[self.written[VALIDATION] :]
        self.append(TRAIN, means(progress.train_loss, self.every, self.written[TRAIN]))
        self.append(VALIDATION, held_out)
        self.append(PERPLEXITY, [(step, perplexity(loss)) for step, loss in held_out])
        self.latest["step"] = progress.step
        self.summarise()

    def append(self, name: str, rows: Rows) -> None:
        """Add points to a curve."""
        if not rows:
            return
        with self.file(name).open("a", encoding="utf-8", newline="") as file:
            csv.writer(file, delimiter="\t", lineterminator="\n").writerows(rows)
        self.written[name] += len(rows)
        split, value = name.split("/")
        last = rows[-1][1]
        self.latest.setdefault(split, {})[value] = last if math.isfinite(last) else str(last)  # as DVCLive does

    def file(self, name: str) -> Path:
        """Return a curve's file."""
        return self.folder / "plots" / "metrics" / f"{name}.tsv"

    def summarise(self) -> None:
        """Write the latest values."""
        with staged(self.folder / "metrics.json") as file:
            file.write_text(json.dumps(self.latest, indent=4, sort_keys=True) + "\n", encoding="utf-8")


def means(losses: list[float], every: int, done: int = 0) -> Rows:
    """Return steps and losses, each the mean of the `every` steps up to it, without the first `done` of these."""
    ends = range(every * (done + 1), len(losses) + 1, every)
    return [(end, sum(losses[end - every : end]) / every) for end in ends]


def perplexity(loss: float) -> float:
    """Return the exponential of a loss; infinite where a float cannot hold it."""
    try:
        return math.exp(loss)
    except OverflowError:
        return math.inf
