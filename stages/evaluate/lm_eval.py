"""python -m stages.evaluate.lm_eval --model espalier --model_args pretrained=FOLDER ...: lm-eval's command.

Importing this module registers the model `espalier`: the branching harness on a model folder.
"""

from typing import Any

import torch
from lm_eval.__main__ import cli_evaluate
from lm_eval.api.registry import register_model

from stages.evaluate.language_model import BranchingLM
from stages.models.checkpoint import load_model, load_tokenizer


@register_model("espalier")
class Espalier(BranchingLM):
    """The branching harness, as lm-eval makes a model of its command's arguments."""

    def __init__(self, pretrained: str, batch_tokens: int = 2048, device: str | None = None, **_: Any):
        """Load the model in folder `pretrained`; `batch_tokens` bounds the tokens of one forward pass.

        Without `device` it is the GPU, if there is one. lm-eval's own arguments about batches are not used.
        """
        place = device or ("cuda" if torch.cuda.is_available() else "cpu")
        super().__init__(load_model(pretrained, place), load_tokenizer(pretrained), int(batch_tokens))


if __name__ == "__main__":
    cli_evaluate()
