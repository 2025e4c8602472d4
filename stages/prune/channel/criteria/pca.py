"""PCA: the stream keeps the principal components of what is read of it (SliceGPT, Ashkboos et al. 2024).

SliceGPT has another rotation before every norm, which takes a matrix of hidden x hidden for each on the residual path,
and a head of its own. One rotation for the whole model takes neither: the model keeps its architecture, and more
channels at the same number of parameters.
"""

import torch
from transformers import PreTrainedModel

from stages.common import processes
from stages.common.errors import UserError
from stages.common.torch_setup import arithmetic
from stages.models.parts import Parts
from stages.prune.activations import TOKENS_PER_PASS
from stages.prune.channel.criteria import DirectionCriterion, diagonalised
from stages.prune.channel.stream import halves


class Pca(DirectionCriterion):
    @torch.no_grad()
    def basis(self, model: PreTrainedModel, windows: torch.Tensor, count: int) -> torch.Tensor:
        """Return the first principal components of second moments summed over all places that read the stream.

        Every token counts alike at each place: divided by its root mean square, as by the norm there. Raises UserError
        for activations that are not finite.
        """
        parts = Parts(model)
        square = second_moments(model, windows)
        if not torch.isfinite(square).all():
            raise UserError("the calibration activations are not finite; the base model or its dtype is not usable")
        basis = torch.linalg.eigh(square).eigenvectors[:, -count:].flip(1)
        if model.config.tie_word_embeddings:
            basis = diagonalised(basis, parts.last_norm.weight.double() + parts.family.norm.offset)
        # Either sign of an eigenvector is right: the largest entry becomes positive, whatever the solver returns.
        return basis * basis.gather(0, basis.abs().argmax(0, keepdim=True)).sign()


def second_moments(model: PreTrainedModel, windows: torch.Tensor) -> torch.Tensor:
    """Return the sum of X'X over all norms of the stream, (hidden, hidden), float64, X the normed stream unweighted."""
    parts = Parts(model)
    square = torch.zeros(parts.width, parts.width, dtype=torch.float64, device=model.device)

    def add(_: object, args: tuple[torch.Tensor, ...]) -> None:
        x = torch.nn.functional.rms_norm(args[0].float(), (parts.width,)).flatten(0, 1)
        square.add_(x.T @ x)

    norms = [*(half.norm for half in halves(parts)), parts.last_norm]
    hooks = [norm.register_forward_pre_hook(add) for norm in norms]
    try:
        for batch in windows.split(max(1, TOKENS_PER_PASS // windows.shape[1])):
            with arithmetic():
                model.get_decoder()(batch.to(model.device), use_cache=False)
    finally:
        for hook in hooks:
            hook.remove()
    return processes.add_up(square)
