"""The smallest models, params and tokenizers that exercise everything."""

from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared"

torch.set_num_threads(1)  # tiny tensors gain nothing from more


def tiny_llama(
    heads=4, kv_heads=2, layers=3, hidden=32, mlp=24, vocab=64, head_dim=8, tied=False, bias=False, seed=0
) -> LlamaForCausalLM:
    """Return a random Llama, every bias included non-zero, in float32 and evaluation mode."""
    config = LlamaConfig(
        vocab_size=vocab,
        hidden_size=hidden,
        intermediate_size=mlp,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        head_dim=head_dim,
        tie_word_embeddings=tied,
        attention_bias=bias,
        mlp_bias=bias,
        max_position_embeddings=256,
        initializer_range=0.2,
        bos_token_id=None,
        eos_token_id=0,
        pad_token_id=0,
    )
    torch.manual_seed(seed)
    model = LlamaForCausalLM(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.normal_()
    return model


def prune_params(**changes):
    """Return section `prune` with small defaults, changed by `changes`."""
    from stages.prune.params import PruneParams

    defaults = {
        "method": "l2",
        "structure": None,
        "criterion": None,
        "update": None,
        "ratio": 0.5,
        "ratio_of": "groups",
        "attention_layers": [1, 3],
        "mlp_layers": [1, 3],
        "allocation": None,
        "grouping": "sum",
        "taylor": "param_first",
        "iterative_steps": 1,
        "round_to": 1,
        "layout": "free",
        "seed": 0,
        "calibration": {"windows": 4, "length": 16},
    }
    return PruneParams.model_validate({**defaults, **changes})


def tiny_tokenizer(vocab: int = 64):
    """Return a byte-level tokenizer with `vocab` entries, each a letter, digit or blank."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 "
    vocabulary = {"<eos>": 0, **{letter: i + 1 for i, letter in enumerate(letters[: vocab - 1])}}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<eos>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>", pad_token="<eos>")
