"""The smallest models, params and tokenizers that exercise everything."""

from pathlib import Path

import torch
from transformers import (
    CohereConfig,
    CohereForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    GraniteConfig,
    GraniteForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    Olmo2Config,
    Olmo2ForCausalLM,
    OlmoeConfig,
    OlmoeForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    Phi3Config,
    Phi3ForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
    SmolLM3Config,
    SmolLM3ForCausalLM,
    Starcoder2Config,
    Starcoder2ForCausalLM,
)

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared"

COMMON = {
    "max_position_embeddings": 256,
    "initializer_range": 0.2,
    "bos_token_id": None,
    "eos_token_id": 0,
    "pad_token_id": 0,
}


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
        **COMMON,
    )
    return random_model(LlamaForCausalLM, config, seed)


# Each with what sets it apart: a sliding window in all layers or in some, biases, norms of queries and keys, layers
# without rotary embedding.
FAMILIES = {
    "llama": (LlamaForCausalLM, LlamaConfig, {}),
    "mistral": (MistralForCausalLM, MistralConfig, {"sliding_window": None}),
    "mistral sliding": (MistralForCausalLM, MistralConfig, {"sliding_window": 6}),
    "qwen2": (Qwen2ForCausalLM, Qwen2Config, {}),
    "qwen2 sliding": (
        Qwen2ForCausalLM, Qwen2Config, {"use_sliding_window": True, "sliding_window": 6, "max_window_layers": 1},
    ),
    "qwen3": (Qwen3ForCausalLM, Qwen3Config, {}),
    "qwen3 biased": (Qwen3ForCausalLM, Qwen3Config, {"attention_bias": True}),
    "smollm3": (SmolLM3ForCausalLM, SmolLM3Config, {"no_rope_layer_interval": 2}),
    "granite": (
        GraniteForCausalLM, GraniteConfig,
        {"embedding_multiplier": 2.0, "residual_multiplier": 0.5, "attention_multiplier": 0.2, "logits_scaling": 3.0},
    ),
    "olmo2": (Olmo2ForCausalLM, Olmo2Config, {}),
    "starcoder2": (Starcoder2ForCausalLM, Starcoder2Config, {"sliding_window": 6}),
    "cohere": (CohereForCausalLM, CohereConfig, {"logit_scale": 0.5}),
    "cohere normed": (CohereForCausalLM, CohereConfig, {"use_qk_norm": True}),
    "gemma2": (Gemma2ForCausalLM, Gemma2Config, {"sliding_window": 6, "final_logit_softcapping": 3.0}),
    "gemma3_text": (
        Gemma3ForCausalLM, Gemma3TextConfig, {"sliding_window": 6, "sliding_window_pattern": 2},
    ),
    "gpt_neox": (GPTNeoXForCausalLM, GPTNeoXConfig, {"rotary_pct": 0.5}),
    "phi3": (Phi3ForCausalLM, Phi3Config, {"partial_rotary_factor": 0.5}),
    "opt": (OPTForCausalLM, OPTConfig, {}),
}  # fmt: skip


# What an architecture does not allow; everything else works, and docs/architectures.md says the same.
LIMITS: dict[str, set[str]] = {
    "llama": set(),
    "mistral": set(),
    "qwen2": set(),
    "qwen3": set(),
    "smollm3": {"gguf"},
    "granite": set(),
    "olmo2": {"realign", "gguf"},
    "starcoder2": {"channel", "gguf"},
    "cohere": {"channel", "gguf"},
    "gemma2": {"realign", "gguf"},
    "gemma3_text": {"realign", "gguf"},
    "gpt_neox": {"channel", "gguf"},
    "phi3": {"gguf"},
    "opt": {"channel", "gguf"},
}


def tiny_family(
    family: str, heads=4, kv_heads=2, layers=3, hidden=32, mlp=24, vocab=64, tied=False, seed=0
) -> PreTrainedModel:
    """Return a random model of one of FAMILIES as `tiny_llama` is one, every norm's weights included."""
    model_class, config_class, settings = FAMILIES[family]
    if not hasattr(config_class, "num_key_value_heads"):
        kv_heads = heads  # each query head has keys and values of its own
    width_key = "ffn_dim" if hasattr(config_class, "ffn_dim") else "intermediate_size"
    config = config_class(
        vocab_size=vocab,
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        head_dim=8,
        tie_word_embeddings=tied,
        **{width_key: mlp},
        **COMMON,
        **settings,
    )
    return varied_norms(random_model(model_class, config, seed))


def varied_norms(model: PreTrainedModel) -> PreTrainedModel:
    """Return `model` with random weights of every norm."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name:
                parameter.uniform_(0.5, 1.5)
    return model


# Mixtures of experts: the keys of their experts, and a router that normalises the weights of those chosen or does not.
EXPERTS = {
    "mixtral": (MixtralForCausalLM, MixtralConfig, {"num_local_experts": 6, "intermediate_size": 12}),
    "qwen3_moe": (Qwen3MoeForCausalLM, Qwen3MoeConfig, {"num_experts": 6, "moe_intermediate_size": 12}),
    "qwen3_moe normalised": (
        Qwen3MoeForCausalLM, Qwen3MoeConfig, {"num_experts": 6, "moe_intermediate_size": 12, "norm_topk_prob": True},
    ),
    "olmoe": (OlmoeForCausalLM, OlmoeConfig, {"num_experts": 6, "intermediate_size": 12}),
}  # fmt: skip


def tiny_experts(family: str, chosen=2, layers=3, vocab=64, tied=False, seed=0, width=12) -> PreTrainedModel:
    """Return a random mixture of six experts of `width` channels, one of EXPERTS, `chosen` of them for each token."""
    model_class, config_class, settings = EXPERTS[family]
    settings = {key: width if key.endswith("intermediate_size") else value for key, value in settings.items()}
    config = config_class(
        vocab_size=vocab,
        hidden_size=32,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        num_experts_per_tok=chosen,
        tie_word_embeddings=tied,
        **COMMON,
        **settings,
    )
    return varied_norms(random_model(model_class, config, seed))


def random_model(model_class, config, seed: int) -> PreTrainedModel:
    """Return a random model, every bias included non-zero, in float32 and evaluation mode."""
    torch.manual_seed(seed)
    model = model_class(config).eval()
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
        "pattern": None,
        "ratio": 0.5,
        "ratio_of": "groups",
        "budget": None,
        "budget_length": 16,
        "attention_layers": [1, 3],
        "mlp_layers": [1, 3],
        "allocation": None,
        "grouping": "sum",
        "taylor": "param_first",
        "iterative_steps": 1,
        "round_to": 1,
        "layout": "free",
        "streaming": False,
        "seed": 0,
        "calibration": {"windows": 4, "length": 16},
    }
    return PruneParams.model_validate({**defaults, **changes})


def pruned_and_saved(base, windows, params, folder: Path):
    """Return `base` as pruned in memory, saved to folder/one and loaded, with the metrics; streaming gives the same."""
    from stages.models.checkpoint import load_model, save_checkpoint
    from stages.models.paging import load_paged, save_model
    from stages.prune.pruning import prune

    save_checkpoint(base, tiny_tokenizer(), folder / "base")
    found = []
    for name, loaded in (
        ("one", load_model(folder / "base")),
        ("paged", load_paged(folder / "base", folder / "parts")),
    ):
        pruned, metrics = prune(loaded, windows, params)
        save_model(pruned, tiny_tokenizer(), folder / name)
        found.append((load_model(folder / name), metrics))
    (model, metrics), (streamed, same) = found
    assert metrics == same
    weights = dict(streamed.named_parameters())
    assert weights.keys() == dict(model.named_parameters()).keys()
    assert all(torch.equal(weight, weights[name]) for name, weight in model.named_parameters())
    return model, metrics


def tiny_tokenizer(vocab: int = 64):
    """Return a byte-level tokenizer with `vocab` entries, each a letter, digit or blank."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 "
    vocabulary = {"<eos>": 0, **{letter: i + 1 for i, letter in enumerate(letters[: vocab - 1])}}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<eos>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>", pad_token="<eos>")


# SmolLM2's template, with a BOS of its own, as Llama 3's and Mistral's have.
CHATML = (
    "{% for m in messages %}{% if loop.first %}{{ '<s>system\\nBe brief<|im_end|>\\n' }}{% endif %}"
    "{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


def chat_tokenizer(template: str = CHATML):
    """Return a byte-level tokenizer that adds a BOS, whose chat template begins with one as well."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    special = ["<s>", "<|im_start|>", "<|im_end|>"]
    alphabet = [*special, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokenizer = Tokenizer(models.BPE(vocab={token: number for number, token in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(special)
    wrapping = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="<|im_end|>", clean_up_tokenization_spaces=False
    )
    wrapping.chat_template = template
    return wrapped(wrapping, "<s> $A")


def wrapped(tokenizer, single: str):
    """Return `tokenizer` with special tokens put around what it encodes, such as "<s> $A </s>"."""
    from tokenizers.processors import TemplateProcessing

    names = [part for part in single.split() if part != "$A"]
    special = [(name, tokenizer.convert_tokens_to_ids(name)) for name in dict.fromkeys(names)]
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single=single, special_tokens=special)
    return tokenizer
