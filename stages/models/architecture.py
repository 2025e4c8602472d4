"""What a family's file says: where a decoder keeps its parts. Names alone: params are checked without torch."""

from dataclasses import dataclass
from typing import Any, Literal


def path(*names: str) -> str:
    """Return the name of what lies in modules within each other; one that has no name is what the first lies in."""
    return ".".join(filter(None, names))


@dataclass(frozen=True)
class Attention:
    """A layer's attention: its module and norms, named in the layer; its matrices, named in the module."""

    module: str
    norm: str | None  # of what it reads
    query: str
    key: str
    value: str
    output: str
    query_norm: str | None = None  # of queries and of keys, named in the module
    key_norm: str | None = None
    unit_norms: Literal["shared", "own", "together"] = "shared"  # their weights: see below
    after: str | None = None  # the norm of its result, before that is added to the residual stream
    head_dim: str = "head_dim"  # the module's attribute that holds the size of a head
    stacked: bool = False  # one matrix holds all queries, then all keys, then all values; otherwise head by head
    # Where the module keeps the numbers of its heads, if not in the matrices alone; "config." before a key.
    query_counts: tuple[str, ...] = ()
    key_counts: tuple[str, ...] = ()

    # shared: one set of weights for all heads. own: weights of its own for each head. together: likewise, and one root
    # mean square divides all heads.

    @property
    def inputs(self) -> tuple[str, ...]:
        """What reads the residual stream; one matrix may be queries, keys and values, head by head."""
        return tuple(dict.fromkeys((self.query, self.key, self.value)))

    @property
    def units(self) -> tuple[str, ...]:
        """What writes a unit, a key/value head with its query heads; the matrix whose rows count the units first."""
        return tuple(dict.fromkeys((self.key, self.value, self.query)))

    @property
    def fused(self) -> int:
        """How many of queries, keys and values the matrix that counts the units holds."""
        return (self.query, self.key, self.value).count(self.key)


@dataclass(frozen=True)
class Mlp:
    """A layer's MLP: its module and norms, named in the layer; its matrices, named in the module.

    Where the layer itself holds the matrices, the module has no name, and `activation` is what comes between them.
    """

    module: str
    norm: str | None  # of what it reads
    gate: str | None  # where it is `up` too, one matrix holds all rows of the gate, then those of `up`
    up: str
    output: str
    after: str | None = None  # the norm of its result, before that is added to the residual stream
    activation: str | None = None  # named in the layer
    width_key: str = "intermediate_size"  # of the config

    @property
    def inputs(self) -> tuple[str, ...]:
        """What reads the residual stream."""
        return tuple(dict.fromkeys((self.gate, self.up))) if self.gate else (self.up,)

    @property
    def units(self) -> tuple[str, ...]:
        """What writes a unit, an MLP channel."""
        return self.inputs


@dataclass(frozen=True)
class Norm:
    """The norms of the residual stream."""

    eps_key: str | None = "rms_norm_eps"  # of the config, None where it has none
    centred: bool = False  # they subtract the mean (LayerNorm), which zero channels count in
    offset: float = 0.0  # they multiply by this plus their weights


@dataclass(frozen=True)
class Logits:
    """Keys of the config that say what becomes of the head's products."""

    factor: str | None = None
    divisor: str | None = None
    cap: str | None = None  # cap * tanh(products / cap)


@dataclass(frozen=True)
class Experts:
    """A layer's MLP as a mixture of experts: its module and the norm before it, named in the layer.

    `router` is a module whose weight has a row for each expert; `stack` is one whose tensors `gate_up`, (experts,
    2 width, hidden), and `output`, (experts, hidden, width), hold all of them. Both are named in the module.
    """

    module: str
    norm: str
    count_key: str  # of the config: the number of experts
    width_key: str  # of the config: the MLP channels of an expert
    router: str
    stack: str
    gate_up: str
    output: str
    file_module: str  # what files of weights call the module
    file_matrices: tuple[str, str, str]  # and an expert's gate, up and output there, each a tensor of its own


@dataclass(frozen=True)
class Architecture:
    """A causal language model of transformers; what is not inside a layer is named in the model."""

    model_class: str
    embeddings: str
    layers: str
    last_norm: str
    rotary: str | None
    head: str
    attention: Attention
    mlp: Mlp | Experts
    norm: Norm = Norm()
    logits: Logits = Logits()
    activation_key: str = "hidden_act"  # of the config
    residual_key: str | None = None  # of the config: what attention and MLP put out is multiplied by it
    positions: str | None = None  # learned embeddings of positions
    needed: tuple[tuple[str, Any], ...] = ()  # keys of the config and what they must hold; "=key": the value of key
    parallel: bool | str = False  # attention and MLP both read what the layer is given; or the key of the config for it
    embedding_scale: str | None = None  # attribute of the embeddings, a factor: the root of the hidden size
    bias_keys: tuple[str, ...] = ()  # of the config, which together give every matrix of a layer a bias
    biased: bool = False  # every matrix of a layer has a bias, whatever the config says
    heads_divide_hidden_size: bool = False  # the config refuses other numbers of query heads
    heads_fill_hidden_size: bool = False  # the plain class has as many heads as fill the hidden size
    heads_set_longrope: bool = False  # the config wants as many factors of longrope as heads fill the hidden size with
    fixed_heads: bool = False  # the class takes no other heads than those that make up the hidden size
    layer_keys: tuple[str, ...] = ()  # of the config, lists with an entry for each layer
    saved_head: str | None = None  # what checkpoints of transformers call the head, where that is another name
    gguf: str | None = None  # llama.cpp's architecture for layers of one width, None where it has none for these
    gguf_keys: tuple[tuple[str, str], ...] = ()  # keys of the config, and what that architecture calls them

    @property
    def outputs(self) -> list[str]:
        """The matrices that write to the residual stream, named in a layer."""
        return [path(half.module, half.output) for half in (self.attention, self.mlp)]

    @property
    def skipped_modules(self) -> dict[str, list[str]]:
        """What goes with a whole attention or MLP, named in a layer: the module, then its norms.

        Without an MLP that is not a module of its own, or whose norm is the attention's too.
        """
        halves: dict[str, Attention | Mlp] = {} if self.parallel else {"attention": self.attention}
        if isinstance(self.mlp, Mlp) and self.mlp.module and not self.parallel:
            halves["mlp"] = self.mlp
        return {kind: [half.module, *filter(None, (half.norm, half.after))] for kind, half in halves.items()}

    @property
    def head_matrices(self) -> dict[str, int]:
        """The attention's matrices, named in a layer, and the dimension that heads lie along."""
        names = self.attention
        return {f"{names.module}.{name}": 0 for name in names.inputs} | {f"{names.module}.{names.output}": 1}

    @property
    def head_counts(self) -> list[str]:
        """The attributes that hold numbers of heads, named in a layer."""
        names = self.attention
        return [f"{names.module}.{name}" for name in (*names.query_counts, *names.key_counts)]

    @property
    def linears(self) -> tuple[str, ...]:
        """The names of the matrices of a layer and of the head, which LoRA can adapt."""
        attention, mlp = self.attention, self.mlp
        matrices = () if isinstance(mlp, Experts) else (*mlp.inputs, mlp.output)
        return *attention.inputs, attention.output, *matrices, self.head
