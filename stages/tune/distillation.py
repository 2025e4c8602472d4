"""Objective: match the base's predictions (Hinton et al. 2015) and, optionally, its hidden states."""

import torch
import torch.nn.functional as F
from transformers import PreTrainedModel

from stages.common.errors import UserError
from stages.models.parts import Head
from stages.tune.examples import IGNORE
from stages.tune.sliced import sliced_sum


class Distillation:
    """T^2 KL(base || model) of next-token distributions at temperature T, in nats, summed over the labelled tokens.

    `hidden_weight` times the relative squared error of the hidden states, |h - h'|^2 / |h'|^2 with h' the base's, is
    added for every token: a mean over the layers (Muralidharan et al. 2024, intermediate states).
    """

    def __init__(self, base: PreTrainedModel, temperature: float, hidden_weight: float):
        self.base = base.requires_grad_(False)
        self.temperature = temperature
        self.hidden_weight = hidden_weight

    def __call__(self, model: PreTrainedModel, tokens: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Return the loss (float32) of tokens and labels, both (rows, length); labels only mark tokens."""
        learnt = labels[:, 1:] != IGNORE
        with torch.no_grad():
            goals = self.states(self.base, tokens, learnt)
        states = self.states(model, tokens, learnt)

        def score(part: torch.Tensor, rows: slice) -> torch.Tensor:
            with torch.no_grad():
                goal = self.log_probabilities(self.base, goals[-1][rows])
            found = self.log_probabilities(model, part)
            return F.kl_div(found, goal, reduction="sum", log_target=True) * self.temperature**2

        loss = sliced_sum(score, states[-1], Head(model))
        if self.hidden_weight:
            errors = [relative_error(state, goal) for state, goal in zip(states, goals, strict=True)]
            loss = loss + self.hidden_weight * torch.stack(errors).mean(0).sum()
        return loss

    def states(self, model: PreTrainedModel, tokens: torch.Tensor, learnt: torch.Tensor) -> list[torch.Tensor]:
        """Return the layers' outputs at the tokens that count, each (tokens, hidden), or only the last layer's."""
        every = self.hidden_weight > 0
        out = model.get_decoder()(input_ids=tokens, use_cache=False, output_hidden_states=every)
        layers = out.hidden_states[1:] if every else [out.last_hidden_state]
        return [layer[:, :-1][learnt] for layer in layers]

    def log_probabilities(self, model: PreTrainedModel, hidden: torch.Tensor) -> torch.Tensor:
        """Return the log-probabilities at the temperature, (tokens, vocabulary), float32."""
        return torch.log_softmax(Head(model)(hidden).float() / self.temperature, dim=-1)


def relative_error(state: torch.Tensor, goal: torch.Tensor) -> torch.Tensor:
    """Return |state - goal|^2 / |goal|^2 of every row, float32."""
    return (state.float() - goal.float()).square().sum(-1) / goal.float().square().sum(-1)


def check_states(base: PreTrainedModel, model: PreTrainedModel, hidden_weight: float) -> None:
    """Raise UserError where hidden states are to be compared of models that do not have the same ones."""
    shapes = [(each.config.num_hidden_layers, each.config.hidden_size) for each in (base, model)]
    if hidden_weight and shapes[0] != shapes[1]:
        raise UserError(
            f"tune.hidden_weight = {hidden_weight:g} compares layer by layer, but the base has {shapes[0][0]} layers "
            f"of hidden size {shapes[0][1]} and the pruned model {shapes[1][0]} of {shapes[1][1]}; expected 0"
        )
