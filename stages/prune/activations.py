"""Pass the calibration windows through the model, half a layer at a time, while it is being pruned.

A half is a layer's attention or its MLP, with the norm before it. A half that is cut before the windows leave it hands
the next one the activations of the model as pruned so far. Whatever is read there, the half computes what its output
matrix reads once; the dense model's residual stream, where an update aims at it, takes one pass more. What is held at a
time is the hidden states of the windows and one half's activations (SparseGPT, Frantar & Alistarh 2023, holds a
layer's).
"""

from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import nn
from transformers import PreTrainedModel

from stages.common import processes
from stages.common.torch_setup import arithmetic
from stages.models.half import Half
from stages.models.mixture import ExpertMatrix, Mixture
from stages.models.paging import bring_in
from stages.models.parts import Parts
from stages.models.prunable import Kind
from stages.prune.inputs import ExpertInputs, Inputs, SharedInput

TOKENS_PER_PASS = 2048


class Activations:
    """The windows' hidden states before one half of `model`; asking for a half's inputs moves them there."""

    def __init__(self, model: PreTrainedModel, windows: torch.Tensor, with_targets: bool = False):
        """Embed `windows`, tokens of shape (count, length); `with_targets`: pass them through the dense model too."""
        self.parts = Parts(model)
        self.layers, self.last_norm = self.parts.layers, self.parts.last_norm
        per_pass = max(1, TOKENS_PER_PASS // windows.shape[1])
        bring_in(model.get_input_embeddings())
        self.hidden = [given_to_layers(model, each)[0] for each in windows.split(per_pass)]
        self.settings = given_to_layers(model, windows[:1])[1]
        self.layer, self.kind = 0, "attention"
        self.reference = list(self.hidden) if with_targets else []  # the dense model's residual stream here
        self.targets: list[torch.Tensor] = []  # and behind this half
        # What an MLP reads that computes beside the attention: the streams before both.
        self.before: list[torch.Tensor] = []
        self.reference_before: list[torch.Tensor] = []
        self.caught: list[torch.Tensor] = []
        self.routed: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = []
        self.arrive()

    def inputs(self, matrices: SharedInput) -> Inputs:
        """Return the statistics of what `matrices` read; they are asked for in the order in which the windows pass."""
        self.go_to(matrices.layer, matrices.kind)
        half, output = self.half if self.layer < len(self.layers) else None, matrices.output
        if isinstance(half, Mixture) and isinstance(output, ExpertMatrix):
            return ExpertInputs(self, matrices, half, output.expert)
        return Inputs(self, matrices)

    def ahead(self, together: Sequence[SharedInput], names: Iterable[str]) -> list[Inputs]:
        """Return the statistics of what matrices of one layer read in it as it is; the windows stay before it.

        `names` are those properties of Inputs that are wanted: what is read later would be read somewhere else.
        """
        self.go_to(together[0].layer)
        hidden, found = self.hidden, []
        for matrices in together:
            found.append(self.inputs(matrices))
            for name in names:
                getattr(found[-1], name)
        self.hidden, self.kind = hidden, "attention"
        self.before, self.caught, self.routed = [], [], []
        return found

    def go_to(self, layer: int, kind: Kind = "attention") -> None:
        """Pass what comes before the half `kind` of `layer`, as it is now; layer len(layers) is after the last one."""
        assert (layer, kind) >= (self.layer, self.kind), "the windows pass each half once"
        while (self.layer, self.kind) != (layer, kind):
            self.advance()

    @torch.no_grad()
    def advance(self) -> None:
        """Pass the half that the windows are at, as it is now."""
        outputs = zip(self.hidden, self.read_by_output(), strict=True)
        beside = self.parts.parallel and self.kind == "attention"
        self.before, self.reference_before = (self.hidden, self.reference) if beside else ([], [])
        with arithmetic():
            self.hidden = [hidden + self.half.result(x) for hidden, x in outputs]
        self.reference, self.caught, self.routed = self.targets, [], []
        self.layer, self.kind = (self.layer, "mlp") if self.kind == "attention" else (self.layer + 1, "attention")
        self.arrive()

    @torch.no_grad()
    def arrive(self) -> None:
        """Bring the half's weights in and keep what it makes of the dense model's stream, while it is still dense."""
        if self.layer < len(self.layers):
            bring_in(self.layers[self.layer])
            with arithmetic():
                pairs = zip(self.reference, self.dense_sources, strict=True)
                self.targets = [stream + self.half.result(self.inner(source)) for stream, source in pairs]

    @property
    def sources(self) -> list[torch.Tensor]:
        """The streams that this half reads."""
        return self.before or self.hidden

    @property
    def dense_sources(self) -> list[torch.Tensor]:
        """The dense model's streams that this half reads."""
        return self.reference_before or self.reference

    @property
    def half(self) -> Half | Mixture:
        """The half that the windows are at."""
        layer = self.layers[self.layer]
        return self.parts.attention(layer) if self.kind == "attention" else self.parts.second(layer)

    @property
    def norm(self) -> nn.Module:
        """The norm before this half; after the last layer, the one before the head."""
        if self.layer == len(self.layers):
            return self.last_norm
        return self.half.norm

    @property
    def output(self) -> nn.Linear:
        """What writes this half's result to the residual stream: a matrix, or a mixture of experts as a whole."""
        return self.half.output

    @torch.no_grad()
    def inner(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return what the output matrix reads, given the residual stream that this half reads."""
        half, output = self.half, self.output
        # Past the output matrix: its product is not wanted here, or wanted only once the matrix is another.
        output.forward = lambda x: x  # type: ignore[assignment]
        try:
            with arithmetic():
                if self.kind == "attention":
                    return half.module(hidden_states=half.norm(hidden), **self.settings[self.layer])[0]
                return half.module(half.norm(hidden))
        finally:
            del output.forward

    def read_by_output(self) -> list[torch.Tensor]:
        """Return what the output matrix reads, (windows, length, in) a batch; computed when it is first asked for."""
        if not self.caught:
            self.caught = [self.inner(each) for each in self.sources]
        return self.caught

    @torch.no_grad()
    def routes(self) -> list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
        """Return batch by batch the tokens that this mixture reads, the weights and the experts that its router gives.

        The tokens have shape (tokens, hidden); weights and experts (tokens, k). Computed when first asked for.
        """
        if not self.routed:
            half = self.half
            assert isinstance(half, Mixture), "an MLP has no router"
            for batch in self.read_by_output():
                tokens = batch.flatten(0, 1)
                with arithmetic():
                    _, weights, chosen = half.router(tokens)
                self.routed.append((tokens, weights, chosen))
        return self.routed

    @torch.no_grad()
    def normed(self, streams: list[torch.Tensor]) -> Iterator[torch.Tensor]:
        """Yield what the norm of this half makes of `streams`, the sources or the dense ones, batch by batch."""
        for stream in streams:
            yield self.norm(stream)

    @torch.no_grad()
    def rest(self, windows: int) -> torch.Tensor:
        """Return the last hidden states of the model as it is now, on so many windows of the first batch."""
        hidden = self.hidden[0][:windows]
        with arithmetic():
            if self.kind == "mlp":
                hidden = hidden + self.half.result(self.inner(self.sources[0][:windows]))
            for layer, settings in list(zip(self.layers, self.settings, strict=True))[
                self.layer + (self.kind == "mlp") :
            ]:
                hidden = layer(hidden, **settings)
            return self.last_norm(hidden)

    def cut(self, columns: torch.Tensor) -> None:
        """Keep of what the output matrix reads the `columns` that it has been cut down to.

        Where one norm divides all heads, what is left is another without the others, and is computed again; so is what
        stands for a half that loses all. A mixture reads the same whatever its experts lose.
        """
        if isinstance(self.half, Mixture):
            return
        anew = self.half.together or not len(columns)
        self.caught = [] if anew else [each[..., columns.to(each.device)] for each in self.caught]


@torch.no_grad()
def given_to_layers(model: PreTrainedModel, tokens: torch.Tensor) -> tuple[torch.Tensor, list[dict]]:
    """Return what the first layer reads, (windows, length, hidden), and what each is given beside; no layer is run.

    `tokens` has shape (windows, length). Positions and masks of one window broadcast to any number of windows of its
    length.
    """
    inputs: list[torch.Tensor] = []
    settings: list[dict] = []

    def note(hidden: torch.Tensor, **others) -> torch.Tensor:
        inputs.append(hidden)
        settings.append(others)
        return hidden

    parts = Parts(model)
    layers, device = parts.layers, parts.embeddings.weight.device
    for layer in layers:
        layer.forward = note
    try:
        model.get_decoder()(input_ids=tokens.to(device), use_cache=False)
    finally:
        for layer in layers:
            del layer.forward
    return inputs[0], settings


@torch.no_grad()
def block_influence(model: PreTrainedModel, windows: torch.Tensor) -> torch.Tensor:
    """Return 1 - the mean cosine between the input and the output of every layer, shape (layers,), float64.

    `windows`, this process's, has shape (count, length). ShortGPT (Men et al. 2024), eq. 1.
    """
    activations = Activations(model, windows)
    influences = []
    for layer in range(len(activations.layers)):
        before = activations.hidden
        activations.go_to(layer + 1)
        pairs = zip(before, activations.hidden, strict=True)
        cosines = [torch.cosine_similarity(a.double(), b.double(), dim=-1).flatten() for a, b in pairs]
        every = torch.cat(cosines)
        mean = processes.add_up(every.sum()) / processes.total(len(every))
        influences.append(1 - mean.cpu())
    return torch.stack(influences)
