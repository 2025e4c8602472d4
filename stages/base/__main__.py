"""Stage base: data/text -> models/base, metrics/details/base.json, metrics/base_loss.csv, metrics/live/base."""

import math
import shutil
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from stages.base import from_scratch, gguf, hub, local_folder, package, shape
from stages.base.params import BaseParams
from stages.common import resume, training
from stages.common.live import LiveCurves
from stages.common.outputs import staged, write_details
from stages.common.params import RunParams, load_section
from stages.common.stage import run_stage
from stages.common.torch_setup import setup_torch
from stages.models.config import check_not_quantised
from stages.models.paging import save_model

SOURCES = {
    "package": package.make,
    "gguf": gguf.make,
    "path": local_folder.make,
    "hub": hub.make,
    "train": from_scratch.make,
    "shape": shape.make,
}
INPUTS = (from_scratch.TEXT, Path(__file__).parent, training.__file__, resume.__file__)


def main() -> None:
    """Make the base model as params.yaml says."""
    params, run = load_section("base", BaseParams), load_section("run", RunParams)
    device = setup_torch(run, params.seed)
    inputs = resume.digest(*INPUTS)
    state = resume.state_folder("base", run.model_dump_json(), params.model_dump_json(), inputs)

    model, tokenizer, progress = SOURCES[params.source](params, device, state)
    check_not_quantised(model.config)
    if params.source != "train":
        LiveCurves("base")  # without a point

    with staged("models/base") as folder:
        save_model(model.to(getattr(torch, params.dtype)), tokenizer, folder)
        card = Path(str(model.name_or_path)) / "README.md"
        if params.source in ("package", "gguf", "path", "hub") and card.is_file():
            shutil.copyfile(card, folder / card.name)  # it names the licence, which every export inherits
    training.write_losses("metrics/base_loss.csv", progress, from_scratch.LOSSES_EVERY)
    details = summary(model, progress, params)
    if params.source in ("package", "gguf"):
        details["dequantised_from"] = gguf.quantised_as(Path(str(model.name_or_path)))
    write_details("metrics/details/base.json", details)
    resume.forget(state)


def summary(
    model: PreTrainedModel, progress: training.Progress, params: BaseParams
) -> dict[str, int | float | str | None]:
    """Return the details: the size and, if the model was trained here, how far that came."""
    details: dict[str, Any] = {"parameters": sum(weight.numel() for weight in model.parameters())}
    if progress.step:
        loss = progress.validation_loss[progress.best_step]
        details |= {
            "steps": progress.step,
            "best_step": progress.best_step,
            "trained_tokens": progress.step * params.batch_size * params.window,
            "validation_loss": loss,
            "validation_ppl": math.exp(loss),
        }
    return details


if __name__ == "__main__":
    run_stage("base", main)
