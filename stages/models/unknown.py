"""What a model of an architecture outside the list is made of, so that its family's file can be written."""

from typing import Any

import torch
from torch import nn
from transformers import CONFIG_MAPPING, MODEL_FOR_CAUSAL_LM_MAPPING

FOLDER = "stages/models/families"
NOT_DESCRIBED = {
    "bloom": "its layers share position biases with a slope for each head, so they cannot differ in heads",
    "falcon": "its config derives the size of a head from the number of heads, which then cannot change",
}


def how_to_add(content: dict[str, Any]) -> str:
    """Return, in one line, which file would describe the model of a config.json with `content`, and its modules."""
    model_type = content.get("model_type")
    if not isinstance(model_type, str) or not model_type.isidentifier():
        return ""
    if model_type not in CONFIG_MAPPING or CONFIG_MAPPING[model_type] not in MODEL_FOR_CAUSAL_LM_MAPPING:
        return f"; transformers has no causal language model of type {model_type!r} either"
    if model_type in NOT_DESCRIBED:
        return f"; {NOT_DESCRIBED[model_type]} (docs/architectures.md)"
    file = f"; {FOLDER}/{model_type}.py would describe it (docs/architectures.md)"
    try:
        return f"{file}: {modules(CONFIG_MAPPING[model_type], content)}"
    except Exception:  # a config that no model can be built from
        return file


def modules(config_class: Any, content: dict[str, Any]) -> str:
    """Return the class of the model, its modules outside the layers and those of one layer, by name with their class.

    On the meta device, so without weights. A mapping of transformers gives the model's class.
    """
    model_class: Any = MODEL_FOR_CAUSAL_LM_MAPPING[config_class]
    one = {key: 1 for key in ("num_hidden_layers", "num_layers", "n_layer", "n_layers") if key in content}
    settings = {key: value for key, value in content.items() if key != "layer_types"} | one
    with torch.device("meta"):
        model = model_class(config_class.from_dict(settings))
    named = [(name, module) for name, module in model.named_modules() if name]
    lists = [(name, module) for name, module in named if isinstance(module, nn.ModuleList) and len(module)]
    layers, found = lists[0]
    outside = [(name, module) for name, module in named if not name.startswith(f"{layers}.") and name != layers]
    inside = [(name, module) for name, module in found[0].named_modules() if name]
    return (
        f"{model_class.__name__} has {leaves(outside)}; and in each of {layers} ({type(found[0]).__name__}) "
        f"{leaves(inside)}"
    )


def leaves(named: list[tuple[str, nn.Module]]) -> str:
    """Return the names and classes of the modules that hold no others."""
    return ", ".join(f"{name} ({type(module).__name__})" for name, module in named if not list(module.children()))
