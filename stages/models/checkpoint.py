"""Load and save models as ordinary Hugging Face folders of safetensors."""

from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch.utils._python_dispatch import is_traceable_wrapper_subclass
from transformers import AutoTokenizer, GenerationConfig, LlamaTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from stages.common.errors import UserError
from stages.models.config import architecture_of, is_quantised, read_config, token_problems
from stages.models.folder import GENERATION_CONFIG, TOKENIZER_SETTINGS, VOCABULARIES, one_line, read_json
from stages.models.tensors import check_weight_files, model_tensors


def load_model(folder: str | Path, device: torch.device | str = "cpu", **options) -> PreTrainedModel:
    """Return the causal language model in `folder`, in evaluation mode and in the dtype it was saved in.

    `options` go to from_pretrained (attn_implementation, dtype). Raises UserError for a folder that is no complete
    checkpoint, a model type that is not supported, truncated weights, weights that are not finite, or quantised ones
    (`quantization_config` in config.json) whose library is not installed.
    """
    folder = Path(folder)
    config = read_config(folder)
    # How the tensors of a quantised checkpoint belong together, transformers reads from its files itself.
    source, tensors, dtype = None, None, options.pop("dtype", None)
    if is_quantised(config):
        check_weight_files(folder)
        source, dtype = folder, dtype or "auto"
    else:
        # transformers would map the files, and they would stay resident beside whatever replaces a weight.
        _, tensors = model_tensors(folder, config, dtype)
        dtype = config.dtype
    try:
        loaded = architecture_of(config).from_pretrained(
            source,
            config=config,
            dtype=dtype,
            state_dict=tensors,
            output_loading_info=True,
            use_safetensors=True,  # never a pickle, whatever lies in the folder
            **options,
        )
    except ImportError as error:
        raise UserError(f"{folder}: {one_line(error)}") from None
    except (RuntimeError, OSError) as error:  # tensors that a quantisation does not know
        raise UserError(f"{folder}: the weights do not fit config.json ({one_line(error)})") from None
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
    path = folder / GENERATION_CONFIG
    if not path.is_file():
        return
    read_json(path)
    try:
        model.generation_config = GenerationConfig.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # a value of another type
        raise UserError(f"{path} is not a valid generation config: {one_line(error)}") from None
    for problem in token_problems(model.generation_config, model.config.vocab_size):
        raise UserError(f"{path}: {problem}")


def check_finite(folder: Path, name: str, weight: torch.Tensor) -> None:
    """Raise UserError if the weight called `name` in `folder` is not finite."""
    # NaN and infinity show in the extremes, which take no copy of the weight to find.
    if not torch.stack(weight.aminmax()).isfinite().all():
        dtype = str(weight.dtype).removeprefix("torch.")
        raise UserError(f"{folder}: {name} holds values that are not finite (NaN or infinity) in {dtype}")


def stored(parameter: torch.Tensor) -> list[torch.Tensor]:
    """Return the tensors that hold the values of `parameter`: itself, or of a quantised one its integers and scales."""
    if not is_traceable_wrapper_subclass(parameter):
        return [parameter]
    names, _ = parameter.__tensor_flatten__()
    return [getattr(parameter, name) for name in names]


def load_tokenizer(folder: str | Path) -> PreTrainedTokenizerBase:
    """Return the tokenizer in `folder`; UserError, naming the file, if there is none or it is damaged."""
    folder = Path(folder)
    found = [name for name in VOCABULARIES if (folder / name).is_file()]
    if not found:
        raise UserError(f"{folder} has no tokenizer: expected one of the files {', '.join(VOCABULARIES)}")
    for name in (*TOKENIZER_SETTINGS, "tokenizer.json", "vocab.json"):
        if (folder / name).is_file():
            read_json(folder / name)
    # AutoTokenizer reads a SentencePiece model that no tokenizer_config.json comes with as another kind of tokenizer.
    alone = found == ["tokenizer.model"] and not (folder / TOKENIZER_SETTINGS[0]).is_file()
    try:
        return (LlamaTokenizer if alone else AutoTokenizer).from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
    except Exception as error:  # whatever transformers, tokenizers or sentencepiece stumble over
        reason = json_problem(folder / "tokenizer.json") if found[0] == "tokenizer.json" else ""
        raise UserError(f"{folder}: cannot load a tokenizer from {found[0]}: {reason or one_line(error)}") from None


def json_problem(file: Path) -> str:
    """Return why the library tokenizers refuses a tokenizer.json, "" where it does not."""
    try:
        Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises nothing more specific
        return one_line(error)
    return ""


def has_tokenizer(folder: Path) -> bool:
    """Return whether `folder` holds the files of a tokenizer."""
    return any((folder / name).is_file() for name in VOCABULARIES)


def save_checkpoint(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Write config, generation config, safetensors and tokenizer to `folder`."""
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
