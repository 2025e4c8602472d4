"""Run a clone of microsoft/TransformerCompression (SliceGPT) as it is, with the pinned transformers, for peers.py.

Its code rotates and slices. From outside it gets a stand-in for ml_collections, where it keeps one setting, and a
compressed layer whose forward pass calls attention as the pinned transformers do. It unties the head from the
embedding, so its models have a second matrix of the vocabulary, and a rotation of the stream in every half of a layer.
"""

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import torch
from transformers import PreTrainedModel
from transformers.models.llama.modeling_llama import LlamaDecoderLayer


@torch.no_grad()
def prune(clone: Path, model: PreTrainedModel, windows: torch.Tensor, width: int) -> None:
    """Rotate the residual stream of `model` and slice it to `width`, the head too, by the authors' code."""
    package, settings = ModuleType("slicegpt"), ModuleType("ml_collections")
    package.__path__ = [str(clone / "src/slicegpt")]
    settings.ConfigDict = SimpleNamespace
    sys.modules |= {"slicegpt": package, "ml_collections": settings}
    from slicegpt.adapters.llama_adapter import LlamaModelAdapter
    from slicegpt.layernorm_fusion import fuse_modules, replace_layers
    from slicegpt.rotate import rotate_and_slice
    from slicegpt.slicing_scheduler import ConstSlicingScheduler

    class Adapter(LlamaModelAdapter):
        compressed_layer_type = CompressedLayer

    model.config.torch_dtype, model.config.use_cache = torch.float32, False
    adapter = Adapter(model)
    replace_layers(adapter)
    fuse_modules(adapter)
    batches = [{"input_ids": batch} for batch in windows.split(16)]  # 16, as their script does
    rotate_and_slice(adapter, batches, ConstSlicingScheduler(width, do_slice_head=True), apply_mask=False)


class CompressedLayer(LlamaDecoderLayer):
    """A layer whose residual stream is rotated in both halves, as their CompressedLlamaDecoderLayer."""

    def forward(self, hidden_states: torch.Tensor, **given) -> torch.Tensor:
        """Return the stream after the layer."""
        attended, _ = self.self_attn(hidden_states=self.input_layernorm(hidden_states), **given)
        hidden_states = shortcut(hidden_states, self.attn_shortcut_Q) + attended
        passed = self.mlp(self.post_attention_layernorm(hidden_states))
        return shortcut(hidden_states, self.mlp_shortcut_Q) + passed


def shortcut(stream: torch.Tensor, rotation: torch.Tensor | None) -> torch.Tensor:
    """Return the stream as the half hands it on."""
    return stream if rotation is None else stream @ rotation
