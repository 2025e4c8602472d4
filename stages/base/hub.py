"""base.source = hub: a model of a Hugging Face hub at a pinned revision."""

from glob import escape
from pathlib import Path

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from stages.base.local_folder import load
from stages.base.params import BaseParams
from stages.common.hub import fetch
from stages.common.training import Progress
from stages.models.folder import INDEX, SMALL_FILES, WEIGHTS, indexed_names


def make(
    params: BaseParams, device: torch.device, state: Path
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, Progress]:
    """Return model and tokenizer of `params.model` at `params.revision`, and the progress of no training.

    What transformers reads of a folder is fetched, and nothing else: no pickles, which could run code, and none of the
    same weights in another format. Raises UserError for what cannot be fetched, and for what `load` does not take.
    """
    name, revision = str(params.model), str(params.revision)
    snapshot = fetch("model", name, revision, [*SMALL_FILES, WEIGHTS])
    if not (snapshot.folder / WEIGHTS).is_file() and (snapshot.folder / INDEX).is_file():
        shards = [escape(shard) for shard in indexed_names(snapshot.folder / INDEX)]
        snapshot = fetch("model", name, snapshot.commit, shards)
    return load(snapshot.folder, params, state)
