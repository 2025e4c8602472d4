"""Exports do in llama.cpp what the model does in transformers."""

import json
from pathlib import Path

import pytest
import torch
from export_helpers import TEXTS, byte_level, ragged_llama, sentencepiece, sentencepiece_model
from helpers import prune_params, tiny_family
from tokenizers import Regex, Tokenizer, pre_tokenizers, processors

from stages.common import llama_cpp
from stages.common.errors import UserError
from stages.export import gguf_model
from stages.export.formats import write
from stages.export.gguf_tokenizer import LLAMA3
from stages.export.verify import ExportError, HeldOut, verify
from stages.models.checkpoint import load_tokenizer
from stages.prune.block.pruning import prune

llama_vocab_is_eog = pytest.importorskip("llama_cpp", reason=llama_cpp.MISSING).llama_vocab_is_eog

RAGGED, UNIFORM = [(2, 32), (1, 64), (2, 96)], [(2, 64), (2, 64)]
LINES = [line for text in TEXTS for line in text.splitlines()] + [
    "it's 1234567 'T ÀÉ\u00a0日本語 🙂  trailing  ",
    "<|end|>",
]
LLAMA3_ROPE = {
    "rope_type": "llama3", "rope_theta": 10000.0, "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}  # fmt: skip
BYTE_LEVEL, PIECES = byte_level(), sentencepiece()


def export(model, tokenizer, kind, folder):
    """Write, verify, and return what was measured.

    llama.cpp rounds what goes into a quantised matrix to 8 bits, which moves a window's loss by about 0.5 % either way:
    the mean of 48 is then within 0.1 %, on any processor's kernels.
    """
    write(model, tokenizer, kind, folder)
    windows = torch.randint(300, (48, 48), generator=torch.Generator().manual_seed(1))
    return verify(model, tokenizer, folder, kind, HeldOut(windows, LINES), threads=1)


@pytest.mark.parametrize(
    "options",
    [
        {"widths": RAGGED, "tied": True},
        {"widths": RAGGED, "tied": False, "bias": True},
        {"widths": [(2, 32), (0, 32), (1, 64), (0, 96)], "bias": True},
        {"widths": UNIFORM, "tied": False, "group_size": 1},
        {"widths": UNIFORM, "tied": True, "bias": True},
        {"widths": UNIFORM, "rope": LLAMA3_ROPE},
        {"widths": RAGGED, "rope": {"rope_type": "linear", "rope_theta": 5000.0, "factor": 2.0}},
    ],
)
@pytest.mark.parametrize("kind", ["gguf-f32", "gguf-f16"])
def test_outputs_are_those_of_transformers(options, kind, tmp_path):
    found = export(ragged_llama(**options, head_dim=16), BYTE_LEVEL, kind, tmp_path / "export")
    assert found["llama_cpp_logits_relative_error"] < (1e-5 if kind == "gguf-f32" else 1e-2)
    assert found["llama_cpp_greedy_tokens_equal"] == 64
    assert found["llama_cpp_lines_encoded_equal"] == found["llama_cpp_lines_decoded_equal"] == len(LINES)


@pytest.mark.parametrize("family", ["mistral", "qwen2", "qwen3", "granite"])
def test_every_family_runs(family, tmp_path, windows):
    options = {"attention_layers": [0, 3], "mlp_layers": [0, 3]} if family in ("qwen3", "granite") else {}  # one width
    model, _ = prune(tiny_family(family, vocab=300), windows, prune_params(ratio=0.5, **options))
    found = export(model, BYTE_LEVEL, "gguf-f32", tmp_path / "export")
    assert found["llama_cpp_logits_relative_error"] < 1e-5


@pytest.mark.parametrize("kind", ["gguf-q8_0", "gguf-q4_0"])
@pytest.mark.parametrize("widths", [RAGGED, UNIFORM])
def test_quantised_outputs_are_those_of_the_dequantised_weights(widths, kind, tmp_path):
    found = export(ragged_llama(widths, head_dim=16), BYTE_LEVEL, kind, tmp_path / "export")
    assert abs(found["llama_cpp_ppl_ratio"] - 1) < 0.005
    assert found["llama_cpp_logits_relative_error"] < 0.15  # of 8-bit activations, 0.08 at most by sixteen models


@pytest.mark.parametrize(
    "tokenizer",
    [
        PIECES,
        byte_level(
            pre_tokenizer=pre_tokenizers.Sequence(
                [
                    pre_tokenizers.Split(Regex(LLAMA3), "isolated"),
                    pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
                ]
            )
        ),
        byte_level(
            pre_tokenizer=pre_tokenizers.Sequence(
                [
                    pre_tokenizers.Split(Regex(LLAMA3.replace("{1,3}", "")), "isolated"),
                    pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
                ]
            )
        ),
        byte_level(
            pre_tokenizer=pre_tokenizers.Sequence(
                [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
            )
        ),
    ],
    ids=["sentencepiece", "llama 3", "qwen 2", "smollm"],
)
def test_every_kind_of_tokenizer_encodes_and_decodes_alike(tokenizer, tmp_path):
    found = export(ragged_llama([(1, 8)], vocab=350), tokenizer, "gguf-f32", tmp_path / "export")
    assert found["llama_cpp_lines_encoded_equal"] == found["llama_cpp_lines_decoded_equal"] == len(LINES)


def test_sentencepiece_merges_in_the_order_that_was_learned(tmp_path):
    lines = [line for line in Path(__file__).read_text(encoding="utf-8").splitlines() if line.strip()]
    tokenizer, backwards = sentencepiece(600, lines), sentencepiece(600, lines)
    description = json.loads(tokenizer.backend_tokenizer.to_str())
    description["model"]["merges"].reverse()
    backwards.backend_tokenizer.model = Tokenizer.from_str(json.dumps(description)).model
    assert sum(tokenizer(line)["input_ids"] != backwards(line)["input_ids"] for line in lines) > len(lines) / 2
    write(ragged_llama([(1, 8)], vocab=600), tokenizer, "gguf-f32", tmp_path / "export")
    found = verify(
        ragged_llama([(1, 8)], vocab=600), tokenizer, tmp_path / "export", "gguf-f32",
        HeldOut(torch.randint(600, (2, 48)), lines), threads=1,
    )  # fmt: skip
    assert found["llama_cpp_lines_encoded_equal"] == found["llama_cpp_lines_decoded_equal"] == len(lines) > 100


def adding(tokenizer, before=(), after=()):
    """Return the tokenizer with tokens that it puts around every text."""
    single = " ".join([*before, "$A", *after])
    numbers = [(token, tokenizer.convert_tokens_to_ids(token)) for token in {*before, *after}]
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(single=single, special_tokens=numbers)
    return tokenizer


@pytest.mark.parametrize(
    "tokenizer",
    [
        adding(byte_level(), before=["<|end|>"]),
        adding(byte_level(), after=["<|end|>"]),
        adding(byte_level(), before=["<|end|>"], after=["<|end|>"]),
        adding(byte_level(), after=["<|end|>"]),
        adding(sentencepiece(), before=["<s>"], after=["</s>"]),
        adding(sentencepiece(), after=["</s>"]),
    ],
    ids=["bos", "eos", "both", "eos without a bos", "sentencepiece, both", "sentencepiece, eos"],
)
def test_blanks_and_long_pieces_stay_whatever_a_tokenizer_puts_around_a_text(tokenizer, tmp_path, request):
    if "without" in request.node.callspec.id:
        tokenizer.bos_token = None
    tokenizer.add_tokens("=" * 40)
    lines = [" = Robert Boulter = ", "  two", "=" * 80 + " , and ?", " \t"]
    write(ragged_llama([(1, 8)], vocab=360), tokenizer, "gguf-f32", tmp_path / "export")
    found = verify(
        ragged_llama([(1, 8)], vocab=360), tokenizer, tmp_path / "export", "gguf-f32",
        HeldOut(torch.randint(300, (2, 48)), lines), threads=1,
    )  # fmt: skip
    otherwise = found["lines_encoded_otherwise"]
    assert otherwise == (1 if "sentencepiece" in request.node.callspec.id else 0)  # the one with an added token
    assert found["llama_cpp_lines_encoded_equal"] == len(lines) - otherwise
    assert found["llama_cpp_lines_decoded_equal"] == len(lines)


def test_a_llama_tokenizer_is_compared_where_it_can_be_equal(tmp_path):
    sentencepiece_model(tmp_path / "tokenizer.model")
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "LlamaTokenizer"}')
    tokenizer, model = load_tokenizer(tmp_path), ragged_llama([(1, 8)], vocab=360)
    lines = [" = Robert Boulter = ", "  two  blanks", "one</s> more", "the cat sat", "a dog, naïve ☃", "</s>"]
    write(model, tokenizer, "gguf-f32", tmp_path / "export")
    held_out = HeldOut(torch.randint(300, (2, 48)), lines)
    found = verify(model, tokenizer, tmp_path / "export", "gguf-f32", held_out, threads=1)
    assert found["lines_encoded_otherwise"] == 4
    assert found["llama_cpp_lines_encoded_equal"] in (2, 3)  # a special token alone may be alike
    assert found["llama_cpp_lines_decoded_equal"] == len(lines)


def test_generation_ends_at_every_end_token_of_the_model(tmp_path):
    tokenizer, model = byte_level(), ragged_llama([(1, 8)])
    model.generation_config.eos_token_id = [7, 0, 9]
    write(model, tokenizer, "gguf-f32", tmp_path / "export")
    llama = llama_cpp.open_llama(tmp_path / "export/model.gguf", 64, 1, every_logit=True)
    vocabulary = llama._model.vocab
    assert [token for token in range(300) if llama_vocab_is_eog(vocabulary, token)] == [0, 7, 9]


@pytest.mark.parametrize("family", ["mistral sliding", "qwen2 sliding"])
def test_a_sliding_window_is_compared_up_to_its_length(family, tmp_path):
    found = export(tiny_family(family, vocab=300), BYTE_LEVEL, "gguf-f32", tmp_path / "export")
    assert found["llama_cpp_logits_relative_error"] < 1e-5 and found["llama_cpp_greedy_tokens_equal"] == 4


@pytest.mark.parametrize("tokenizer", [PIECES, BYTE_LEVEL], ids=["sentencepiece", "byte-level"])
def test_tokens_that_are_no_text_are_none_in_llama_cpp(tokenizer, tmp_path):
    write(ragged_llama([(1, 8)], vocab=360), tokenizer, "gguf-f32", tmp_path / "export")
    llama = llama_cpp.open_llama(tmp_path / "export/model.gguf", 64, 1, every_logit=True)
    for text in tokenizer.all_special_tokens:
        (number,) = llama.tokenize(text.encode(), add_bos=False, special=True)
        assert number == tokenizer.convert_tokens_to_ids(text)
        assert llama.detokenize([number]) == b""
    assert llama.detokenize([359]) == b""  # a row of the embedding that the tokenizer does not know


def test_rows_in_the_wrong_order_are_found(tmp_path, monkeypatch):
    monkeypatch.setattr(gguf_model, "interleave", lambda rows, head_dim: rows)
    monkeypatch.setattr("stages.models.gguf_file.deinterleave", lambda rows, head_dim: rows)
    with pytest.raises(ExportError, match=r"llama\.cpp.s logits differ by"):
        export(ragged_llama(RAGGED), BYTE_LEVEL, "gguf-f32", tmp_path / "export")


def test_another_tokenizer_is_found(tmp_path):
    folder, model = tmp_path / "export", ragged_llama(RAGGED)
    write(model, byte_level(280), "gguf-f32", folder)
    held_out = HeldOut(torch.randint(300, (2, 48)), LINES)
    with pytest.raises(ExportError, match=r"lines that llama\.cpp encodes differently"):
        verify(model, BYTE_LEVEL, folder, "gguf-f32", held_out, threads=1)


def test_a_truncated_file_is_refused_by_name(tmp_path):
    write(ragged_llama(RAGGED), BYTE_LEVEL, "gguf-f32", tmp_path / "export")
    file = tmp_path / "export" / "model.gguf"
    file.write_bytes(file.read_bytes()[:-5000])
    with pytest.raises(UserError, match=r"model\.gguf: llama.cpp cannot load it"):
        llama_cpp.open_llama(file, 64, 1, every_logit=True)
