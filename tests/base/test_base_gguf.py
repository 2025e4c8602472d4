"""base.source = gguf: what the file holds, in an ordinary model folder, and one line for what is not supported."""

import json

import pytest
import torch
from export_helpers import byte_level, sentencepiece
from gguf_helpers import base_params, converted
from helpers import tiny_family, tiny_llama
from tokenizers import decoders, normalizers, pre_tokenizers, processors
from transformers import AutoModelForCausalLM, AutoTokenizer

from stages.base.gguf import find_file, make
from stages.base.gguf_config import CONFIGS, read_config
from stages.common.errors import UserError
from stages.export.card import base_metadata
from stages.export.gguf_model import write_gguf
from stages.models.gguf_header import read_header
from stages.models.paging import save_model

TOKENS = torch.arange(20)[None]
DIGITS = pre_tokenizers.Sequence(
    [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
)


def without_prefix(tokenizer):
    """Return a SentencePiece tokenizer that puts no blank in front of a text."""
    tokenizer.backend_tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.backend_tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    return tokenizer


def saved(file, folder, **changes):
    """Return model and tokenizer of a folder that holds the base made of `file`, as plain transformers loads them."""
    params = base_params(source="gguf", path=str(file), **{"dtype": "float32", **changes})
    model, tokenizer, progress = make(params, torch.device("cpu"), folder / "state")
    assert progress.step == 0
    save_model(model, tokenizer, folder / "base")
    return AutoModelForCausalLM.from_pretrained(folder / "base"), AutoTokenizer.from_pretrained(folder / "base")


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("architecture", sorted(CONFIGS))
def test_every_architecture_is_the_model_that_was_converted(architecture, tied, tmp_path):
    model = tiny_family(architecture, vocab=300, tied=tied)
    file = converted(model, tmp_path / "tiny.gguf", architecture)
    loaded, _ = saved(file, tmp_path)
    assert type(loaded) is type(model)
    with torch.no_grad():
        assert torch.equal(loaded(TOKENS).logits, model(TOKENS).logits)


@pytest.mark.parametrize("kind", ["F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1"])
@pytest.mark.parametrize("architecture", sorted(CONFIGS))
def test_the_weights_are_those_of_transformers_own_gguf_loading(architecture, kind, tmp_path):
    file = converted(tiny_family(architecture, vocab=300, mlp=32), tmp_path / "tiny.gguf", architecture, kind)
    loaded, _ = saved(file, tmp_path, dtype="bfloat16")
    config = read_config(read_header(file), file)
    expected = AutoModelForCausalLM.from_pretrained(
        tmp_path, gguf_file=file.name, config=config, dtype=torch.bfloat16
    ).state_dict()
    weights = loaded.state_dict()
    assert weights.keys() == expected.keys()
    assert all(torch.equal(weights[name], tensor) for name, tensor in expected.items())


@pytest.mark.parametrize("quantisation", ["f32", "q8_0"])
def test_an_exported_llama_is_a_base_again(quantisation, tmp_path):
    model = tiny_llama(vocab=300, mlp=32, bias=True)
    write_gguf(model, byte_level(), quantisation, tmp_path / "model.gguf")
    loaded, tokenizer = saved(tmp_path, tmp_path / "made")
    with torch.no_grad():
        found, expected = loaded(TOKENS).logits, model(TOKENS).logits
    assert (
        torch.equal(found, expected)
        if quantisation == "f32"
        else (found - expected).abs().max() < 0.05 * expected.std()
    )
    assert tokenizer("f(x) 12").input_ids == byte_level()("f(x) 12").input_ids


def test_the_saved_folder_is_clean(tmp_path):
    file = converted(tiny_llama(vocab=300, mlp=32), tmp_path / "tiny.gguf", "llama", "Q8_0")
    beside = tmp_path / "adapter_config.json"
    beside.write_text("not JSON, and none of the model's")
    loaded, tokenizer = saved(file, tmp_path)
    config = json.loads((tmp_path / "base/config.json").read_text())
    assert "quantization_config" not in config
    assert not [key for key in config if "name" in key or "quant" in key]
    assert (config["rms_norm_eps"], config["dtype"], config["architectures"]) == (1e-6, "float32", ["LlamaForCausalLM"])
    generation = json.loads((tmp_path / "base/generation_config.json").read_text())
    generation.pop("transformers_version")
    assert generation == {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
    assert not getattr(loaded, "is_quantized", False)
    assert tokenizer.model_max_length == 256
    assert sorted(path.suffix for path in tmp_path.glob("state/gguf/*.gguf")) == [".gguf"]


def test_the_card_names_file_hash_types_and_licence(tmp_path):
    quantised = converted(tiny_llama(vocab=300, mlp=32), tmp_path / "tiny.gguf", "llama", "Q4_1")
    saved(quantised, tmp_path)
    card = tmp_path / "state/gguf/README.md"
    text = card.read_text()
    assert "`tiny.gguf`" in text and "23 in Q4_1, 7 in F32" in text
    assert "dequantised to float32" in text and "not the model's original weights" in text
    assert base_metadata(card.parent)["license"] == "unknown"
    saved(converted(tiny_llama(vocab=300), tmp_path / "floats.gguf", "llama", "F16"), tmp_path)
    assert "converted to float32" in card.read_text()


@pytest.mark.parametrize(
    "tokenizer",
    [
        byte_level(),
        byte_level(pre_tokenizer=DIGITS),
        sentencepiece(),
        without_prefix(sentencepiece()),
    ],
    ids=["gpt-2", "smollm", "sentencepiece", "sentencepiece without a blank in front"],
)
def test_the_tokenizer_encodes_as_the_one_that_was_converted(tokenizer, tmp_path):
    tokenizer.chat_template = "{{ messages[0]['content'] }}"
    file = converted(tiny_llama(vocab=400), tmp_path / "tiny.gguf", "llama", tokenizer=tokenizer)
    _, found = saved(file, tmp_path)
    for text in ("The quick  brown\n\n fox's 12 jumps; x**2", " 1 2  345", "naïve ☃", "\t7\n8", "<|end|>a"):
        assert found(text).input_ids == tokenizer(text).input_ids, text
        assert found.decode(found(text).input_ids) == tokenizer.decode(tokenizer(text).input_ids)
    own = {token: number for token, number in found.get_vocab().items() if not token.startswith("[PAD")}
    assert own == tokenizer.get_vocab()
    assert found.chat_template == tokenizer.chat_template
    assert (found.bos_token, found.eos_token, found.unk_token) == (
        tokenizer.bos_token, tokenizer.eos_token, tokenizer.unk_token
    )  # fmt: skip


def test_a_bos_before_every_text_is_kept(tmp_path):
    tokenizer = byte_level()
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<|end|> $A", special_tokens=[("<|end|>", 0)]
    )
    file = converted(tiny_llama(vocab=300), tmp_path / "tiny.gguf", "llama", tokenizer=tokenizer)
    _, found = saved(file, tmp_path)
    assert found("a b").input_ids == tokenizer("a b").input_ids
    assert found("a b", add_special_tokens=False).input_ids == tokenizer("a b", add_special_tokens=False).input_ids


def test_linear_rope_is_kept(tmp_path):
    model = tiny_llama(vocab=300)
    file = converted(model, tmp_path / "tiny.gguf", "llama", rope__scaling__type="linear", rope__scaling__factor=4.0)
    loaded, _ = saved(file, tmp_path)
    assert loaded.config.rope_parameters == {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0}


@pytest.mark.parametrize("changes", [{}, {"low_freq_factor": 2.0}])
def test_llama_3s_rope_is_kept_and_another_of_its_kind_refused(changes, tmp_path):
    rope = {"rope_type": "llama3", "rope_theta": 5e5, "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    model = tiny_llama(vocab=300)
    model.config.rope_parameters = rope | {"original_max_position_embeddings": 8192} | changes
    model = type(model)(model.config).eval()
    write_gguf(model, byte_level(), "f32", tmp_path / "tiny.gguf")
    if changes:
        with pytest.raises(UserError, match=r"tiny\.gguf: tensor rope_freqs\.weight holds rope factors other"):
            saved(tmp_path / "tiny.gguf", tmp_path)
    else:
        loaded, _ = saved(tmp_path / "tiny.gguf", tmp_path)
        assert loaded.config.rope_parameters == model.config.rope_parameters
        with torch.no_grad():
            assert torch.equal(loaded(TOKENS).logits, model(TOKENS).logits)


def test_biases_that_a_llama_has_not_are_named(tmp_path):
    write_gguf(tiny_family("qwen2", vocab=300), byte_level(), "f32", tmp_path / "tiny.gguf")
    with pytest.raises(UserError, match=r"tiny\.gguf holds tensors .* has no place for: .*self_attn\.k_proj\.bias"):
        saved(tmp_path / "tiny.gguf", tmp_path)


@pytest.mark.parametrize(
    ("architecture", "metadata", "words"),
    [
        ("gpt2", {}, r"general\.architecture = 'gpt2' is not supported; expected one of: llama, qwen2, qwen3"),
        ("llama", {"rope__scaling__type": "yarn"}, r"llama\.rope\.scaling\.type = 'yarn' is not supported"),
        ("llama", {"rope__dimension_count": 4}, r"llama\.rope\.dimension_count = 4; expected the heads' size, 8"),
    ],
)
def test_what_is_not_supported_is_named(architecture, metadata, words, tmp_path):
    file = converted(tiny_llama(vocab=300), tmp_path / "tiny.gguf", architecture, **metadata)
    with pytest.raises(UserError, match=rf"tiny\.gguf: {words}"):
        saved(file, tmp_path)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (b"gpt-2", b"other", r"tokenizer\.ggml\.pre = 'other'; expected one of: .*smollm"),
        (
            b"\x04\x00\x00\x00\x00\x00\x00\x00gpt2",
            b"\x04\x00\x00\x00\x00\x00\x00\x00bert",
            r"tokenizer\.ggml\.model = 'bert'",
        ),
        (b"blk.2.", b"blk.7.", "lacks tensors of its 3 layers"),
        (b"blk.0.ffn_down", b"blk.0.ffn_dawn", r"tensor blk\.0\.ffn_dawn\.weight belongs to none"),
        (b"context_length", b"context_lengtH", r"has no llama\.context_length"),
    ],
)
def test_a_changed_file_is_refused_by_name(old, new, words, tmp_path):
    file = converted(tiny_llama(vocab=300), tmp_path / "tiny.gguf", "llama")
    content = file.read_bytes()
    assert old in content
    file.write_bytes(content.replace(old, new))
    with pytest.raises(UserError, match=rf"tiny\.gguf.*{words}"):
        saved(file, tmp_path)


def test_other_paths_are_refused(tmp_path):
    for path, words in [(tmp_path, "holds 0 GGUF files"), (tmp_path / "none", "is not a file")]:
        with pytest.raises(UserError, match=words):
            find_file(path)
    for name in ("a.gguf", "b.gguf"):
        (tmp_path / name).touch()
    with pytest.raises(UserError, match="holds 2 GGUF files; expected a GGUF file, or a folder with exactly one"):
        find_file(tmp_path)
