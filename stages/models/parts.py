"""The parts of a model in memory, found by its family's description."""

from typing import Any

import torch
import transformers
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from stages.models import modeling_pruned
from stages.models.architecture import Architecture, Experts
from stages.models.families import FAMILIES, PRUNED
from stages.models.half import Half, half
from stages.models.mixture import Mixture


class Head:
    """The head of a model: from its last hidden states to logits."""

    def __init__(self, model: PreTrainedModel):
        """Take the output matrix of `model`, and what its config does to the products."""
        names, config = family_of(model.config).logits, model.config
        self.linear: Any = model.get_output_embeddings()
        self.weight = self.linear.weight
        self.factor: float = getattr(config, names.factor) if names.factor else 1.0
        self.divisor: float = getattr(config, names.divisor) if names.divisor else 1.0
        self.cap: float | None = getattr(config, names.cap) if names.cap else None

    def parameters(self) -> list[nn.Parameter]:
        """Return the output matrix's parameters."""
        return list(self.linear.parameters())

    def __call__(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return the logits, (..., vocabulary), of last hidden states, (..., hidden), as the model does."""
        return self.logits(self.linear(hidden))

    def logits(self, products: torch.Tensor) -> torch.Tensor:
        """Return what becomes of the output matrix's products."""
        if self.factor != 1:
            products = products * self.factor
        if self.divisor != 1:
            products = products / self.divisor
        return products if self.cap is None else self.cap * torch.tanh(products / self.cap)

    def slope(self, logits: torch.Tensor) -> torch.Tensor | float:
        """Return the derivative of `logits`, element by element, by the output matrix's products."""
        scale = self.factor / self.divisor
        return scale if self.cap is None else scale * (1 - (logits / self.cap).square())


class Parts:
    """The parts of one model."""

    def __init__(self, model: PreTrainedModel):
        """Look into `model`."""
        self.model, self.family = model, family_of(model.config)

    @property
    def layers(self) -> Any:
        """The decoder layers, a ModuleList."""
        return self.model.get_submodule(self.family.layers)

    @layers.setter
    def layers(self, layers: list[nn.Module]) -> None:
        """Put other layers in their place."""
        self.model.set_submodule(self.family.layers, nn.ModuleList(layers))

    @property
    def last_norm(self) -> Any:
        """The norm before the head."""
        return self.model.get_submodule(self.family.last_norm)

    @property
    def embeddings(self) -> Any:
        """The embeddings of tokens."""
        return self.model.get_submodule(self.family.embeddings)

    @property
    def small(self) -> dict[str, Any]:
        """What is neither in a layer nor a matrix of the vocabulary, by name."""
        names = [self.family.last_norm, *([self.family.positions] if self.family.positions else [])]
        return {name: self.model.get_submodule(name) for name in names}

    @property
    def rotary(self) -> Any:
        """The rotary embedding, whose buffers are not in the state dict; None where there is none."""
        return self.model.get_submodule(self.family.rotary) if self.family.rotary else None

    @rotary.setter
    def rotary(self, module: nn.Module | None) -> None:
        """Put another in its place."""
        if self.family.rotary and module is not None:
            self.model.set_submodule(self.family.rotary, module)

    @property
    def width(self) -> int:
        """The hidden size: the number of channels of the residual stream."""
        return self.embeddings.weight.shape[1]

    @property
    def head_dim(self) -> int:
        """The size of an attention head."""
        halves = (self.attention(layer) for layer in self.layers)
        return getattr(next(half for half in halves if not half.skipped).module, self.family.attention.head_dim)

    def skip(self, layer: int, kind: str) -> None:
        """Take the whole attention or MLP of a layer out, with its norms."""
        modeling_pruned.skip(self.layers[layer], kind, self.family.skipped_modules[kind])

    def attention(self, layer: nn.Module) -> Half:
        """Return the attention of a decoder layer."""
        return half(layer, self.family.attention, self.scale)

    def mlp(self, layer: nn.Module) -> Half:
        """Return the MLP of a decoder layer, in a family without experts."""
        assert not isinstance(self.family.mlp, Experts), "a family with experts has mixtures instead"
        return half(layer, self.family.mlp, self.scale)

    @property
    def heads_fill(self) -> bool:
        """Whether the plain class has as many query heads as fill the hidden size, and takes no other number."""
        longrope = (getattr(self.model.config, "rope_parameters", None) or {}).get("rope_type") == "longrope"
        return self.family.heads_fill_hidden_size or (self.family.heads_set_longrope and longrope)

    @property
    def parallel(self) -> bool:
        """Whether attention and MLP both read what the layer is given."""
        given = self.family.parallel
        return bool(getattr(self.model.config, given)) if isinstance(given, str) else given

    @property
    def embedding_scale(self) -> float:
        """What the embeddings multiply their rows by."""
        name = self.family.embedding_scale
        return float(getattr(self.embeddings, name)) if name else 1.0

    @embedding_scale.setter
    def embedding_scale(self, scale: float) -> None:
        """Multiply by another factor."""
        if self.family.embedding_scale:
            setattr(self.embeddings, self.family.embedding_scale, torch.tensor(scale))

    @property
    def scale(self) -> float:
        """What the results of attention and MLP are multiplied by."""
        key = self.family.residual_key
        return getattr(self.model.config, key) if key else 1.0

    @property
    def has_experts(self) -> bool:
        """Whether the MLPs are mixtures of experts."""
        return isinstance(self.family.mlp, Experts)

    def mixture(self, layer: nn.Module) -> Mixture:
        """Return the mixture of experts of a decoder layer."""
        names = self.family.mlp
        assert isinstance(names, Experts), "a family without experts has MLPs instead"
        module = layer.get_submodule(names.module)
        router, stack = module.get_submodule(names.router), module.get_submodule(names.stack)
        return Mixture(module, layer.get_submodule(names.norm), router, stack, names.gate_up, names.output)

    def second(self, layer: nn.Module) -> Half | Mixture:
        """Return what follows the attention of a decoder layer: the MLP or the mixture of experts."""
        return self.mixture(layer) if self.has_experts else self.mlp(layer)

    @property
    def idle_parameters(self) -> int:
        """The parameters that a token does not pass: those of the experts that the router does not choose for it."""
        if not self.has_experts:
            return 0
        chosen = self.model.config.num_experts_per_tok
        mixtures = (self.mixture(layer) for layer in self.layers)
        return sum((each.experts - chosen) * each.expert_size for each in mixtures)

    @property
    def widths(self) -> list[dict[str, int]]:
        """The widths of every layer, read from its weights and keyed as in config.json; 0 for what it lacks."""
        head_dim = self.head_dim
        return [
            {
                "num_attention_heads": attention.columns // head_dim,
                "num_key_value_heads": attention.rows // head_dim,
                **self.mlp_widths(layer),
            }
            for layer in self.layers
            for attention in [self.attention(layer)]
        ]

    def mlp_widths(self, layer: nn.Module) -> dict[str, int]:
        """Return the MLP channels of a decoder layer, or its experts and their channels, keyed as in config.json."""
        names, width = self.family.mlp, self.mlp_width(layer)
        if isinstance(names, Experts):
            return {names.count_key: self.mixture(layer).experts, names.width_key: width}
        return {names.width_key: width}

    def mlp_width(self, layer: nn.Module) -> int:
        """Return the number of MLP channels of a decoder layer, or of each of its experts."""
        names = self.family.mlp
        if isinstance(names, Experts):
            return self.mixture(layer).width
        return self.mlp(layer).columns


def family_of(config: PreTrainedConfig) -> Architecture:
    """Return the family of a model's config, that of a pruned class too."""
    return FAMILIES[config.model_type.removeprefix(PRUNED)]


def plain_class(family: Architecture) -> Any:
    """Return the family's class of transformers, whose layers are alike."""
    return getattr(transformers, family.model_class)


def pruned_class(family: Architecture) -> Any:
    """Return the family's class for layers that differ in width."""
    return getattr(modeling_pruned, f"Pruned{family.model_class}")
