"""How far a model's next-token distributions on the calibration windows have moved from the dense model's."""

import torch
import torch.nn.functional as F
from transformers import PreTrainedModel

from stages.prune.activations import TOKENS_PER_PASS, Activations


class Dense:
    """The dense model's outputs on `windows`, tokens of shape (count, length), kept as its last hidden states."""

    @torch.no_grad()
    def __init__(self, model: PreTrainedModel, windows: torch.Tensor):
        """Run `model`, as it is now, on `windows`."""
        self.model, self.head = model, model.get_output_embeddings()
        self.batches = windows.to(model.device).split(max(1, TOKENS_PER_PASS // windows.shape[1]))
        self.hidden = [model.get_decoder()(each, use_cache=False).last_hidden_state for each in self.batches]

    @torch.no_grad()
    def divergence(self, hidden: list[torch.Tensor]) -> float:
        """Return the mean of KL(dense || pruned) in nats per token, given the pruned model's last hidden states."""
        total, tokens = 0.0, 0
        for dense, pruned in zip(self.hidden, hidden, strict=True):
            wanted, got = (F.log_softmax(self.head(each).float(), -1).flatten(0, 1) for each in (dense, pruned))
            total += F.kl_div(got, wanted, reduction="sum", log_target=True).item()
            tokens += len(got)
        return total / tokens

    @torch.no_grad()
    def of_model(self, model: PreTrainedModel) -> float:
        """Return the divergence of a pruned copy that shares the output embeddings."""
        return self.divergence([model.get_decoder()(each, use_cache=False).last_hidden_state for each in self.batches])

    @torch.no_grad()
    def from_layer(self, activations: Activations) -> float:
        """Return the divergence of the model as it is now, starting from the layer that `activations` stand at."""
        ends = []
        for hidden in activations.hidden:
            for layer, settings in list(zip(activations.layers, activations.settings, strict=True))[
                activations.layer :
            ]:
                hidden = layer(hidden, **settings)
            ends.append(self.model.get_decoder().norm(hidden))
        return self.divergence(ends)
