"""Objective: predict the next token.

An objective is a function from (model, tokens, labels) to the loss summed over the tokens that have a label, so that
micro-batches add up to their batch. Another one is another file.
"""

import torch
import torch.nn.functional as F
from transformers import PreTrainedModel

from stages.tune.examples import IGNORE


def next_token_loss(model: PreTrainedModel, tokens: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return the summed cross-entropy (nats, float32) of the labelled tokens; tokens and labels are (rows, length).

    The vocabulary is projected to only where a token is predicted: prompts and padding cost no logits.
    """
    hidden = model.get_decoder()(input_ids=tokens, use_cache=False).last_hidden_state
    predicted = labels[:, 1:] != IGNORE
    logits = model.get_output_embeddings()(hidden[:, :-1][predicted])
    return F.cross_entropy(logits.float(), labels[:, 1:][predicted], reduction="sum")
