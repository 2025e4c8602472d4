"""Full fine-tuning: every weight is trained, and there is no adapter."""

from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from stages.tune.params import TuneParams
from stages.tune.sparsity import keep_zeros

NOTE = "No adapter: tune.method is full, so every weight of {base} was trained. The result is models/merged.\n"


def prepare(model: PreTrainedModel, params: TuneParams) -> PreTrainedModel:
    """Return `model` in float32, in which small steps are not lost, with every weight to be trained.

    The zeros of a sparse model stay; gradual pruning of single weights keeps them itself.
    """
    trained = model.float().requires_grad_(True)
    if params.schedule is None or params.removes_units:
        keep_zeros(trained)
    return trained


def trained(model: PreTrainedModel) -> PreTrainedModel:
    """Return the causal language model itself."""
    return model


def save_adapter(model: PreTrainedModel, base: Path, folder: Path) -> None:
    """Write a folder with a note that there is no adapter."""
    folder.mkdir()
    (folder / "README.md").write_text(NOTE.format(base=base), encoding="utf-8")


def merge(model: PreTrainedModel) -> PreTrainedModel:
    """Return the model in the dtype that it was loaded in."""
    dtype: Any = model.config.dtype
    return model.to(dtype)
