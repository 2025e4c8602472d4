"""Prune, recover and measure the base of the project in the working directory, in one process.

For real_methods.py, real_recovery.py and hybrids.py, which compare many models: no file is written between the steps.
"""

import copy
import sys
import tempfile
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

from real_model import MIRROR, read_texts  # noqa: E402 - the path has to be there first

from stages.common.params import RunParams, read_params_file  # noqa: E402
from stages.common.torch_setup import arithmetic, setup_torch  # noqa: E402
from stages.common.windows import consecutive_windows, random_windows, token_stream  # noqa: E402
from stages.data.library import texts_of  # noqa: E402
from stages.evaluate.harness import merge, run_tasks, scores  # noqa: E402
from stages.evaluate.language_model import BranchingLM  # noqa: E402
from stages.evaluate.outcomes import headlines, only  # noqa: E402
from stages.evaluate.perplexity import window_losses  # noqa: E402
from stages.evaluate.resume import Kept  # noqa: E402
from stages.evaluate.tasks import Tasks, read_tasks  # noqa: E402
from stages.models.checkpoint import load_model, load_tokenizer  # noqa: E402
from stages.prune.params import PruneParams  # noqa: E402
from stages.prune.pruning import prune  # noqa: E402

WINDOWS, LENGTH, QUESTIONS = 16, 1024, 500
CALIBRATION = "data/calibration.parquet"


class Base:
    """models/base, WikiText2 and PTB, and the tasks in data/tasks."""

    def __init__(self, device: str, mirror: Path = MIRROR):
        self.params = read_params_file(ROOT / "params.yaml")
        self.device = setup_torch(RunParams.model_validate(self.params["run"] | {"device": device}), 42)
        self.model = load_model(Path("models/base"), self.device)
        self.tokenizer = load_tokenizer(Path("models/base"))
        self.streams = {
            Path(file).stem: token_stream(texts_of(file, read.table), self.tokenizer)
            for file, read in read_texts(mirror).items()
        }
        self.held_out = {
            name: consecutive_windows(stream, LENGTH)[:WINDOWS]
            for name, stream in self.streams.items()
            if name != Path(CALIBRATION).stem
        }
        self.scratch = Path(tempfile.mkdtemp())

    @cached_property
    def tasks(self) -> Tasks:
        """All tasks."""
        return read_tasks(Path("data/tasks"), "all", self.scratch, False)

    def pruned(self, seed: int, model: PreTrainedModel | None = None, **changes: Any) -> PreTrainedModel:
        """Return the base, or `model`, pruned with 64 windows of 128 tokens of WikiText2's validation text."""
        stream = self.streams[Path(CALIBRATION).stem]
        windows = random_windows(stream, 64, 128, seed, "prune.calibration")
        section = self.params["prune"] | {"ratio_of": "parameters", "seed": seed} | changes
        return prune(copy.deepcopy(model or self.model), windows, PruneParams.model_validate(section))[0]

    @torch.no_grad()
    def perplexities(self, model: PreTrainedModel) -> dict[str, float]:
        """Return the perplexity on both texts."""
        model.eval()
        with arithmetic():
            return {
                f"{name}_ppl": window_losses(model, windows, 16384, name).mean().exp().item()
                for name, windows in self.held_out.items()
            }

    @torch.no_grad()
    def measured(self, model: PreTrainedModel) -> dict[str, float]:
        """Return the perplexity on both texts and the accuracy on the first questions of each task."""
        with arithmetic():
            return self.perplexities(model) | self.accuracies(model)

    def accuracies(self, model: PreTrainedModel) -> dict[str, float]:
        """Return every task's headline metric."""
        language_model = BranchingLM(model, self.tokenizer, 32768)
        kept = Kept(Path(tempfile.mkdtemp(dir=self.scratch)) / "answers")
        found = [
            scores(run_tasks(language_model, [config], 0, QUESTIONS, 42, kept, False)) for config in self.tasks.configs
        ]
        return headlines(only(merge(found), self.tasks.shown))
