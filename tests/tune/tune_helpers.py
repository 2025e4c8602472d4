"""What the tests of stage tune share: a tiny tokenizer, tiny models, and a whole workspace for the stage."""

import json
from pathlib import Path

import pandas as pd
import torch
import yaml
from helpers import tiny_llama
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from stages.models.checkpoint import save_checkpoint
from stages.models.modeling_pruned import PrunedLlamaConfig, PrunedLlamaForCausalLM
from stages.tune.params import TuneParams

VOCABULARY = 320
WIDTHS = {1: (2, 1, 11), 2: (6, 3, 7)}  # layer: query heads, key/value heads, MLP width; six heads do not divide 32
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """Return a byte-level BPE tokenizer with the end of text as token 0 and one word of its own, `the`."""
    alphabet = ["<end>", *sorted(pre_tokenizers.ByteLevel.alphabet()), "th", "the"]
    vocabulary = {token: number for number, token in enumerate(alphabet)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[("t", "h"), ("th", "e")]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<end>"])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<end>", pad_token="<end>", clean_up_tokenization_spaces=False
    )


def tiny_model(kind: str = "plain", tied: bool = False, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """Return a random model: `plain` Llama, or `pruned` with layers of different widths."""
    model: PreTrainedModel = tiny_llama(vocab=VOCABULARY, tied=tied)
    if kind == "pruned":
        keys = ("num_attention_heads", "num_key_value_heads", "intermediate_size")
        settings = {
            key: value for key, value in model.config.to_dict().items() if key not in ("model_type", "architectures")
        }
        config = PrunedLlamaConfig(
            **settings,
            per_layer_config={layer: dict(zip(keys, widths, strict=True)) for layer, widths in WIDTHS.items()},
            allow_global_per_layer_attribute_access=True,
        )
        torch.manual_seed(0)
        model = PrunedLlamaForCausalLM(config).eval()
    return model.to(dtype)


def trainable(model: nn.Module) -> dict[str, torch.Tensor]:
    """Return the parameters that are trained, by name."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def tune_params(**changes) -> TuneParams:
    """Return section `tune` with small defaults, changed by `changes`."""
    return TuneParams.model_validate(tune_section(**changes))


def tune_section(**changes) -> dict:
    """Return section `tune` as params.yaml would hold it."""
    defaults = {
        "data": "text",
        "template": "auto",
        "objective": "next_token",
        "temperature": 1.0,
        "hidden_weight": 0.0,
        "method": "lora",
        "sparsity": {"structure": "weight", "ratio": None, "begin": 0.0, "end": 0.5, "every": 1},
        "control": False,
        "seed": 1,
        "lora_rank": 2,
        "lora_alpha": 4,
        "lora_dropout": 0.1,
        "target_modules": TARGETS,
        "window": 16,
        "batch_size": 4,
        "micro_batch_size": 4,
        "gradient_checkpointing": False,
        "steps": 6,
        "warmup_steps": 2,
        "learning_rate": 0.01,
        "validate_every": 2,
        "validation_sequences": 6,
    }
    return defaults | changes


def write_workspace(folder: Path, model: PreTrainedModel, **changes) -> None:
    """Write params.yaml, data/, models/base and models/pruned as the stages before tune leave them."""
    text = [f"the {number} there {number * 7} then that" for number in range(60)]
    instructions = {
        "instruction": [f"say {number}" for number in range(20)],
        "input": ["", "here"] * 10,
        "output": ["the " * (number % 5 + 1) for number in range(20)],
    }
    (folder / "data/text").mkdir(parents=True)
    pd.DataFrame({"text": text}).to_parquet(folder / "data/calibration.parquet")
    pd.DataFrame({"text": [each.replace("then", "and") for each in text]}).to_parquet(
        folder / "data/text/validation.parquet"
    )
    pd.DataFrame(instructions).to_parquet(folder / "data/instructions.parquet")
    save_checkpoint(model, tiny_tokenizer(), folder / "models/pruned")
    # Another model of the same vocabulary, hidden size and depth, as the one that was pruned has.
    base = tiny_llama(mlp=40, vocab=VOCABULARY, seed=9).to(model.dtype)
    save_checkpoint(base, tiny_tokenizer(), folder / "models/base")
    write_params(folder, **changes)


def write_params(folder: Path, processes: int = 1, sharded: bool = False, **changes) -> None:
    """Write params.yaml with sections run and tune."""
    run = {"device": "cpu", "threads": 1, "precision": "float32", "processes": processes, "sharded": sharded}
    sections = {"run": run, "tune": tune_section(**changes)}
    (folder / "params.yaml").write_text(yaml.safe_dump(sections))


OUTS = ("models/adapter", "models/merged", "metrics/live")


def output_bytes(folder: Path) -> dict[str, bytes]:
    """Return every file that the stage writes, runtime apart, by its path."""
    files = [path for out in OUTS for path in sorted((folder / out).rglob("*")) if path.is_file()]
    files += [folder / "metrics/details/tune.json", folder / "metrics/tune_loss.csv"]
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}


def read_metrics(folder: Path) -> dict:
    """Return metrics/details/tune.json."""
    return json.loads((folder / "metrics/details/tune.json").read_text())
