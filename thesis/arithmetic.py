"""What arithmetic says of the thesis's models: TinyLlama, pruned by LLM-Pruner, and the thesis's count of its work."""

from dataclasses import replace

from analysis.arithmetic import Layer, Shape, linear_weights

TINYLLAMA = Shape(vocab=32000, hidden=2048, head_dim=64, layers=(Layer(32, 4, 5632),) * 22)
THESIS_LAYERS = range(4, 18)  # `--block_mlp_layer_start 4 --block_mlp_layer_end 18`: the end is exclusive
THESIS_TOKENS = 64
PRINTED_BASE_MACS = 77_320_814_592  # its base was counted by another convention than its pruned models


def prune_like_llm_pruner(shape: Shape, ratio: float, layers: range) -> Shape:
    """Return the shape that LLM-Pruner leaves, block-wise at `ratio` in `layers`.

    It keeps int(C * (1 - ratio)) MLP channels, and removes whole KV groups: as many as fit into the rows that the
    ratio takes from the keys'.
    """

    def prune(layer: Layer) -> Layer:
        rows = layer.kv_heads * shape.head_dim
        kv_heads = layer.kv_heads - (rows - int(rows * (1 - ratio))) // shape.head_dim
        return Layer(layer.heads // layer.kv_heads * kv_heads, kv_heads, int(layer.mlp * (1 - ratio)))

    return replace(shape, layers=tuple(prune(layer) if i in layers else layer for i, layer in enumerate(shape.layers)))


def thesis_macs(shape: Shape, tokens: int = THESIS_TOKENS) -> int:
    """Return what LLM-Pruner's test_speedup.py counts for a pruned model: linear layers and the MLPs' activations."""
    return tokens * linear_weights(shape) + 2 * tokens * sum(layer.mlp for layer in shape.layers)
