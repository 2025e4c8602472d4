"""Load and save models as ordinary Hugging Face folders of safetensors."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch.utils._python_dispatch import is_traceable_wrapper_subclass
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import GENERATION_CONFIG_NAME

from stages.common.errors import UserError
from stages.common.gguf_file import gguf_weights
from stages.common.gguf_header import read_header
from stages.common.modeling_pruned import ARCHITECTURES
from stages.common.safetensors_file import unread

GGUF = ".gguf"
SUPPORTED_MODEL_TYPES = (*ARCHITECTURES, *(f"pruned_{name}" for name in ARCHITECTURES))

for _, pruned in ARCHITECTURES.values():
    AutoConfig.register(pruned.config_class.model_type, pruned.config_class)
    AutoModelForCausalLM.register(pruned.config_class, pruned)
    # save_pretrained then copies the module into the folder and names it in config.json's auto_map.
    pruned.config_class.register_for_auto_class("AutoConfig")
    pruned.register_for_auto_class("AutoModelForCausalLM")


def load_model(folder: str | Path, device: torch.device | str = "cpu", **options) -> PreTrainedModel:
    """Return the causal language model in `folder`, in evaluation mode and in the dtype it was saved in.

    `options` go to from_pretrained (attn_implementation, dtype). Raises UserError for a folder that is no complete
    checkpoint, a model type that is not supported, truncated weights, weights that are not finite, or quantised ones
    (`quantization_config` in config.json) whose library is not installed.
    """
    folder = Path(folder)
    check_config(folder)
    check_weight_files(folder)
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        # The class itself, since AutoModelForCausalLM copies its arguments, the weights among them.
        architecture: Any = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
        # How the tensors of a quantised checkpoint belong together, transformers reads from its files itself.
        quantised = hasattr(config, "quantization_config")
        source = (folder, None) if quantised else (None, weights(folder))
        loaded = architecture.from_pretrained(
            source[0],
            config=config,
            dtype=options.pop("dtype", "auto"),
            state_dict=source[1],
            output_loading_info=True,
            **options,
        )
    except ImportError as error:
        raise UserError(f"{folder}: {' '.join(str(error).split())}") from None
    except RuntimeError as error:  # a tensor whose shape is not the config's
        raise UserError(f"{folder}: the weights do not fit config.json ({' '.join(str(error).split())})") from None
    model, report = loaded
    note_origin(model, folder)
    if report["missing_keys"]:  # transformers would go on with random values
        raise UserError(f"{folder} lacks weights: {', '.join(sorted(report['missing_keys']))}")
    for name, parameter in model.named_parameters():
        for tensor in stored(parameter):
            check_finite(folder, name, tensor.detach())
    return model.to(torch.device(device)).eval()


def note_origin(model: PreTrainedModel, folder: Path) -> None:
    """Let `model` know the folder that it comes from, and the generation config there."""
    model.name_or_path = model.config.name_or_path = str(folder)  # what PEFT writes as an adapter's base
    if (folder / GENERATION_CONFIG_NAME).is_file():
        model.generation_config = GenerationConfig.from_pretrained(folder, local_files_only=True)


def check_not_quantised(config: PreTrainedConfig) -> None:
    """Raise UserError for the config of a quantised checkpoint."""
    if hasattr(config, "quantization_config"):
        raise UserError(f"{config.name_or_path} is quantised; allowed: the weights in floating point, which are pruned")


def check_finite(folder: Path, name: str, weight: torch.Tensor) -> None:
    """Raise UserError if the weight called `name` in `folder` is not finite."""
    # NaN and infinity show in the extremes, which take no copy of the weight to find.
    if not torch.stack(weight.aminmax()).isfinite().all():
        raise UserError(f"{folder}: {name} holds values that are not finite (NaN or infinity)")


def weights(folder: Path) -> dict[str, Any]:
    """Return the tensors of all safetensors files of `folder`, still to be read, each into memory of its own.

    transformers would map the files, and they would stay resident beside whatever replaces a weight. Where there is a
    GGUF instead, its tensors dequantised.
    """
    tensors: dict[str, Any] = {}
    for file in weight_files(folder):
        tensors |= gguf_weights(file) if file.suffix == GGUF else unread(file)
    return tensors


def stored(parameter: torch.Tensor) -> list[torch.Tensor]:
    """Return the tensors that hold the values of `parameter`: itself, or of a quantised one its integers and scales."""
    if not is_traceable_wrapper_subclass(parameter):
        return [parameter]
    names, _ = parameter.__tensor_flatten__()
    return [getattr(parameter, name) for name in names]


def load_tokenizer(folder: str | Path) -> PreTrainedTokenizerBase:
    """Return the tokenizer in `folder`; UserError if there is none."""
    if not (Path(folder) / "tokenizer_config.json").is_file():
        raise UserError(f"{folder} has no tokenizer (tokenizer_config.json, tokenizer.json)")
    return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)


def save_checkpoint(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Write config, generation config, safetensors and tokenizer to `folder`."""
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def weight_files(folder: Path) -> list[Path]:
    """Return the safetensors files of `folder`; its GGUF files where it has none, as an export for llama.cpp does."""
    return sorted(folder.glob("*.safetensors")) or sorted(folder.glob(f"*{GGUF}"))


def check_config(folder: Path) -> None:
    """Raise UserError unless `folder` has the config of a supported model."""
    path = folder / "config.json"
    if not path.is_file():
        raise UserError(f"{folder} is no checkpoint: config.json is missing")
    try:
        model_type = json.loads(path.read_text(encoding="utf-8")).get("model_type")
    except ValueError as error:
        raise UserError(f"{path} is not valid JSON: {error}") from None
    if model_type not in SUPPORTED_MODEL_TYPES:
        raise UserError(
            f"{path}: model_type = {model_type!r} is not supported; allowed: {', '.join(SUPPORTED_MODEL_TYPES)}"
        )


def check_weight_files(folder: Path) -> None:
    """Raise UserError unless the weight files of `folder` are all there and whole."""
    files = weight_files(folder)
    if not files:
        raise UserError(f"{folder} has no weights: no *.safetensors file")
    for file in files:
        if file.suffix == GGUF:
            read_header(file)
            continue
        try:
            with safe_open(file, framework="pt"):
                pass
        except SafetensorError as error:
            raise UserError(f"{file} is truncated or corrupt ({error}); fetch or make it again") from None
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        named = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        missing = sorted(named - {file.name for file in files})
        if missing:
            raise UserError(f"{folder} lacks weights that its index names: {', '.join(missing)}")
