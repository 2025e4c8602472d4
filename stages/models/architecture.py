"""What a family's file says: where a decoder keeps its parts. Names alone: params are checked without torch."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Attention:
    """A layer's attention: its module and the norm before it, named in the layer; its matrices, named in the module."""

    module: str
    norm: str
    query: str
    key: str
    value: str
    output: str
    query_norm: str | None = None  # over each head
    key_norm: str | None = None

    @property
    def inputs(self) -> tuple[str, ...]:
        """What reads the residual stream."""
        return self.query, self.key, self.value

    @property
    def units(self) -> tuple[str, ...]:
        """What writes a unit, a key/value head with its query heads; the matrix whose rows count the units first."""
        return self.key, self.value, self.query


@dataclass(frozen=True)
class Mlp:
    """A layer's MLP: its module and the norm before it, named in the layer; its matrices, named in the module."""

    module: str
    norm: str
    gate: str
    up: str
    output: str

    @property
    def inputs(self) -> tuple[str, ...]:
        """What reads the residual stream."""
        return self.gate, self.up

    @property
    def units(self) -> tuple[str, ...]:
        """What writes a unit, an MLP channel."""
        return self.inputs


@dataclass(frozen=True)
class Architecture:
    """A causal language model of transformers; what is not inside a layer is named in the model."""

    model_class: str
    embeddings: str
    layers: str
    last_norm: str
    rotary: str
    head: str
    attention: Attention
    mlp: Mlp
    bias_keys: tuple[str, ...] = ()  # of the config, which together give every matrix of a layer a bias
    heads_divide_hidden_size: bool = False  # the config refuses other numbers of query heads
    layer_keys: tuple[str, ...] = ()  # of the config, lists with an entry for each layer
    gguf: str | None = None  # llama.cpp's architecture for layers of one width, None where it has none for these

    @property
    def linears(self) -> tuple[str, ...]:
        """The names of the matrices of a layer and of the head, which LoRA can adapt."""
        attention, mlp = self.attention, self.mlp
        return *attention.inputs, attention.output, *mlp.inputs, mlp.output, self.head
