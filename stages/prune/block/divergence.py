"""The divergence of a model's next-token distributions from the dense model's, on the calibration windows."""

import torch
import torch.nn.functional as F
from transformers import PreTrainedModel

from stages.models.parts import Head
from stages.prune.activations import Activations

TOKENS = 2048  # at most so many, the first: a divergence is measured hundreds of times, and differs little by token


def first_windows(windows: torch.Tensor) -> torch.Tensor:
    """Return the first of `windows`, tokens of shape (count, length), that a divergence is taken on."""
    return windows[: max(1, TOKENS // windows.shape[1])]


class Dense:
    """The dense model's outputs on the first of `windows`, tokens of shape (count, length), as last hidden states."""

    @torch.no_grad()
    def __init__(self, model: PreTrainedModel, windows: torch.Tensor):
        """Run `model`, as it is now, on those windows."""
        self.model, self.head = model, Head(model)
        self.windows = first_windows(windows).to(model.device)
        self.hidden = model.get_decoder()(self.windows, use_cache=False).last_hidden_state

    @torch.no_grad()
    def divergence(self, hidden: torch.Tensor) -> float:
        """Return the mean of KL(dense || pruned) in nats per token, given the pruned model's last hidden states."""
        wanted, got = (F.log_softmax(self.head(each).float(), -1).flatten(0, 1) for each in (self.hidden, hidden))
        return F.kl_div(got, wanted, reduction="batchmean", log_target=True).item()

    @torch.no_grad()
    def of_model(self, model: PreTrainedModel) -> float:
        """Return the divergence of a pruned copy that shares the output embeddings."""
        return self.divergence(model.get_decoder()(self.windows, use_cache=False).last_hidden_state)

    @torch.no_grad()
    def from_layer(self, activations: Activations) -> float:
        """Return the divergence of the model as it is now, starting from the half that `activations` stand at."""
        return self.divergence(activations.rest(len(self.windows)))
