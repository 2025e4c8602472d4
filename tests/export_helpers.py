"""Models of any widths per layer, and the two kinds of tokenizer that GGUF knows."""

import json
from pathlib import Path

import torch
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from stages.models.families import FAMILIES
from stages.models.modeling_pruned import PrunedLlamaConfig, PrunedLlamaForCausalLM

TEXTS = [
    "The quick brown fox's 12 jumps;\n\tover the lazy dogs.",
    "def f(x):\n    return x**2  # naïve ☃",
    "  two  ",
] * 4


def ragged_llama(
    widths, group_size=2, head_dim=8, hidden=32, vocab=300, tied=True, bias=False, rope=None, seed=0
) -> PrunedLlamaForCausalLM:
    """Return a random Llama whose layer i has widths[i] = (KV groups, MLP width), every tensor non-trivial.

    A width of 0 leaves the attention or the MLP out.
    """
    each = [
        ({"num_attention_heads": kv * group_size, "num_key_value_heads": kv} if kv else {})
        | ({"intermediate_size": mlp} if mlp else {})
        | {"skip": [kind for kind, width in (("attention", kv), ("mlp", mlp)) if not width]}
        for kv, mlp in widths
    ]
    config = PrunedLlamaConfig(
        vocab_size=vocab,
        hidden_size=hidden,
        num_hidden_layers=len(widths),
        num_attention_heads=max(kv for kv, _ in widths) * group_size,
        num_key_value_heads=max(kv for kv, _ in widths),
        intermediate_size=max(mlp for _, mlp in widths),
        head_dim=head_dim,
        tie_word_embeddings=tied,
        attention_bias=bias,
        mlp_bias=bias,
        max_position_embeddings=256,
        initializer_range=0.2,
        rope_parameters=rope or {"rope_type": "default", "rope_theta": 10000.0},
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=0,
        allow_global_per_layer_attribute_access=True,
        per_layer_config=dict(enumerate(each)),
        skipped_modules=FAMILIES["llama"].skipped_modules,
    )
    torch.manual_seed(seed)
    model = PrunedLlamaForCausalLM(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name:
                parameter.uniform_(0.5, 1.5)
            elif name.endswith("bias"):
                parameter.normal_()
    return model


def shapes(multiple: int = 1):
    """Return a strategy of arguments of `ragged_llama`, MLP widths in multiples of `multiple`."""
    layer = st.tuples(st.integers(1, 3), st.integers(1, 3).map(lambda width: width * multiple))
    return st.fixed_dictionaries(
        {
            "widths": st.lists(layer, min_size=1, max_size=3),
            "group_size": st.integers(1, 2),
            "head_dim": st.sampled_from([4, 8, 16]),
            "tied": st.booleans(),
            "bias": st.booleans(),
            "seed": st.integers(0, 99),
        }
    )


def byte_level(vocab_size: int = 300, pre_tokenizer=None, **options) -> PreTrainedTokenizerFast:
    """Return a byte-level BPE tokenizer trained on TEXTS."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizer or pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        TEXTS,
        trainers.BpeTrainer(
            vocab_size=vocab_size, special_tokens=["<|end|>"], initial_alphabet=alphabet, show_progress=False
        ),
    )
    special = {"bos_token": "<|end|>", "eos_token": "<|end|>", "pad_token": "<|end|>"}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, clean_up_tokenization_spaces=False, **special, **options)


def sentencepiece(vocab_size: int = 340, texts: list[str] = TEXTS[:1]) -> PreTrainedTokenizerFast:
    """Return a tokenizer as Llama 2's `tokenizer.json` describes it: blanks as ▁, one in front, bytes at last.

    Its merges are learned from `texts`.
    """
    special = ["<unk>", "<s>", "</s>", *[f"<0x{byte:02X}>" for byte in range(256)]]
    learner = Tokenizer(models.BPE(unk_token="<unk>"))
    learner.pre_tokenizer = pre_tokenizers.Metaspace()
    learner.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=vocab_size, special_tokens=special, show_progress=False)
    )
    learned = json.loads(learner.to_str())["model"]
    merges = [tuple(merge) for merge in learned["merges"]]
    tokenizer = Tokenizer(models.BPE(learned["vocab"], merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>"])
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        clean_up_tokenization_spaces=False,
    )


def sentencepiece_model(file: Path) -> None:
    """Write a tokenizer.model of BPE with bytes at last, as Llama 2 has one."""
    from sentencepiece import SentencePieceTrainer

    with file.open("wb") as model:
        SentencePieceTrainer.train(
            sentence_iterator=iter(["the cat sat on the mat", "a dog ran", "in the park, hello"] * 30),
            model_writer=model, vocab_size=330, model_type="bpe", byte_fallback=True, hard_vocab_limit=False,
            minloglevel=2,
        )  # fmt: skip
