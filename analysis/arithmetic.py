"""What a model's shape alone says about its parameters and its computation, in closed form."""

import math
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Layer:
    """Widths of one decoder layer, 0 where it lacks attention or MLP."""

    heads: int
    kv_heads: int
    mlp: int  # of an expert, where there are experts
    experts: int = 0
    chosen: int = 0  # experts of one token


@dataclass(frozen=True)
class Shape:
    """A decoder's sizes."""

    vocab: int
    hidden: int
    head_dim: int
    layers: tuple[Layer, ...]
    tied: bool = False
    biases: frozenset[str] = frozenset()  # the matrices that have one
    head_norms: str = ""  # of queries and keys: one for all heads of a layer ("shared"), or weights for each ("own")
    norms: int = 2  # vectors of the norms of a layer, as wide as the residual stream
    last_norm: int = 1  # likewise, before the head
    positions: int = 0  # learned embeddings of positions
    gated: bool = True  # the MLP has two matrices that read the stream, else one
    saved: int = 0  # weights that matrices have fewer where each is the product of two thin ones


BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
TRAITS: dict[str, dict[str, Any]] = {
    "qwen3": {"head_norms": "shared"},
    "qwen3_moe": {"head_norms": "shared"},
    "olmo2": {"head_norms": "own"},
    "olmoe": {"head_norms": "own"},
    "starcoder2": {"norms": 4, "last_norm": 2, "gated": False},  # their biases too
    "cohere": {"norms": 1},
    "gemma2": {"norms": 4},
    "gemma3_text": {"norms": 4, "head_norms": "shared"},
    "gpt_neox": {"norms": 4, "last_norm": 2, "gated": False},
    "opt": {"norms": 4, "last_norm": 2, "gated": False},
}


def shape_of(config: dict) -> Shape:
    """Return the shape that a checkpoint's config.json describes, per-layer widths included."""
    per_layer = {int(index): own for index, own in (config.get("per_layer_config") or {}).items()}
    layers = []
    for index in range(config["num_hidden_layers"]):
        own = config | per_layer.get(index, {})
        heads = own["num_attention_heads"]
        experts = own.get("num_local_experts") or own.get("num_experts") or 0
        width = own.get("moe_intermediate_size") or own.get("ffn_dim") or own["intermediate_size"]
        kv_heads = own.get("num_key_value_heads") or heads
        if "attention" in own.get("skip", []):
            heads = kv_heads = 0
        if "mlp" in own.get("skip", []):
            width = 0
        layers.append(Layer(heads, kv_heads, width, experts, own["num_experts_per_tok"] if experts else 0))
    traits = TRAITS.get(config["model_type"].removeprefix("pruned_"), {})
    if config.get("use_qk_norm"):
        traits = traits | {"head_norms": "own"}
    if config["model_type"].endswith("opt"):
        traits = traits | {"positions": config["max_position_embeddings"] + 2}  # it begins at row 2
    return Shape(
        vocab=config["vocab_size"],
        hidden=config["hidden_size"],
        head_dim=config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"],
        layers=tuple(layers),
        tied=bool(config.get("tie_word_embeddings")),
        biases=biases_of(config),
        saved=saved_weights(config),
        **traits,
    )


def saved_weights(config: dict) -> int:
    """Return how many weights fewer the two thin matrices have that stand for each one of low rank."""
    products = [sizes for layer in config.get("ranks") or [] for sizes in layer.values()]
    return sum(out * width - rank * (out + width) for out, rank, width in products)


def biases_of(config: dict) -> frozenset[str]:
    """Return the names of the matrices that have a bias."""
    biases = {"q", "k", "v"} if config["model_type"].endswith("qwen2") else set()
    if config.get("attention_bias"):
        biases |= {"q", "k", "v", "o"}
    if config.get("use_bias") or config.get("enable_bias"):
        biases |= {"q", "k", "v", "o", "up", "down"}
    if config["model_type"].endswith("gpt_neox"):
        biases |= {"up", "down"}
    if config.get("mlp_bias"):
        biases |= {"gate", "up", "down"}
    if config.get("output_bias"):  # of a pruned model with update `bias`
        biases |= {"o", "down"}
    return frozenset(biases)


def linear_weights(shape: Shape, of_a_token: bool = False) -> int:
    """Return the number of weights in all matrices, lm_head included.

    `of_a_token`: without the experts that the router does not choose for a token, so the multiplications of one.
    """
    matrices, layers = 3 if shape.gated else 2, 0
    for layer in shape.layers:
        experts = (layer.chosen if of_a_token else layer.experts) if layer.experts else 1
        layers += 2 * (layer.heads + layer.kv_heads) * shape.head_dim * shape.hidden
        layers += shape.hidden * (matrices * layer.mlp * experts + layer.experts)  # the router has a row for each
    return layers + shape.vocab * shape.hidden - shape.saved


def parameters(shape: Shape) -> int:
    """Return the number of parameters; an embedding tied to lm_head counts once."""
    halves = sum((layer.heads > 0) + (layer.mlp > 0) for layer in shape.layers)
    norms = (shape.norms * halves // 2 + shape.last_norm) * shape.hidden
    for layer in shape.layers:
        heads = {"": 0, "shared": 2 * (layer.heads > 0), "own": layer.heads + layer.kv_heads}[shape.head_norms]
        norms += heads * shape.head_dim
    embedding = 0 if shape.tied else shape.vocab * shape.hidden
    embedding += shape.positions * shape.hidden
    return linear_weights(shape) + embedding + norms + sum(bias_values(shape, layer) for layer in shape.layers)


def bias_values(shape: Shape, layer: Layer) -> int:
    """Return the number of values in the biases of one layer."""
    queries, keys = layer.heads * shape.head_dim, layer.kv_heads * shape.head_dim
    outputs = {
        "q": queries, "k": keys, "v": keys, "o": shape.hidden if queries else 0,
        "gate": layer.mlp, "up": layer.mlp, "down": shape.hidden if layer.mlp else 0,
    }  # fmt: skip
    return sum(outputs[name] for name in shape.biases)


def stored_mib(config: dict) -> float:
    """Return the size of the weights that a checkpoint's config.json describes; NaN of quantised ones."""
    size = math.nan if "quantization_config" in config else BYTES.get(config.get("dtype", ""), math.nan)
    return parameters(shape_of(config)) * size / 2**20


def exact_macs(shape: Shape, tokens: int) -> int:
    """Return the multiply-accumulates of one forward pass over `tokens`: linear layers and attention's two products.

    A bias adds one per output. Causality is not discounted; element-wise work and the rotary angles are left out.
    """
    attention = sum(2 * layer.heads * shape.head_dim * tokens**2 for layer in shape.layers)
    biases = sum(bias_values(shape, layer) for layer in shape.layers)
    return tokens * (linear_weights(shape, of_a_token=True) + biases) + attention
