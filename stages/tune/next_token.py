"""Objective: predict the next token.

An objective is a function from (model, tokens, labels) to the loss summed over the tokens that have a label, so that
micro-batches add up to their batch. Each objective is one file.
"""

import torch
import torch.nn.functional as F
from transformers import PreTrainedModel

from stages.models.parts import Head
from stages.tune.examples import IGNORE
from stages.tune.sliced import sliced_sum


def next_token_loss(model: PreTrainedModel, tokens: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return the summed cross-entropy (nats, float32) of the labelled tokens; tokens and labels are (rows, length).

    The vocabulary is projected to only where a token is predicted: prompts and padding cost no logits.
    """
    hidden = model.get_decoder()(input_ids=tokens, use_cache=False).last_hidden_state
    predicted = labels[:, 1:] != IGNORE
    wanted, head = labels[:, 1:][predicted], Head(model)

    def score(part: torch.Tensor, rows: slice) -> torch.Tensor:
        return F.cross_entropy(head(part).float(), wanted[rows], reduction="sum")

    return sliced_sum(score, hidden[:, :-1][predicted], head)
