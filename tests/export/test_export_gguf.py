"""GGUF files hold the model they were written from, and what they cannot hold is said."""

import json

import numpy as np
import pytest
import torch
from export_helpers import byte_level, ragged_llama, sentencepiece, shapes
from gguf import GGMLQuantizationType, GGUFReader, SpecialVocab
from gguf.quants import dequantize, quantize
from helpers import prune_params, tiny_family, tiny_llama, tiny_tokenizer
from hypothesis import HealthCheck, given, settings
from tokenizers import pre_tokenizers, processors

from stages.common.errors import UserError
from stages.export.gguf_model import write_gguf
from stages.models.checkpoint import load_model, save_checkpoint
from stages.models.families import llama
from stages.models.gguf_file import deinterleave, gguf_name, gguf_weights, interleave, transformers_name
from stages.models.parts import family_of
from stages.prune.block.pruning import prune

QUICK = settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
TOKENIZER = byte_level()


def contents(file) -> dict:
    """Return the metadata of a GGUF file."""
    return {name: field.contents() for name, field in GGUFReader(file).fields.items()}


@given(shape=shapes())
@QUICK
def test_a_float32_file_reads_back_bit_for_bit(shape, tmp_path):
    model = ragged_llama(**shape)
    write_gguf(model, TOKENIZER, "f32", tmp_path / "model.gguf")
    weights = gguf_weights(tmp_path / "model.gguf", family_of(model.config))
    expected = {
        name: tensor for name, tensor in model.state_dict().items() if not (shape["tied"] and "lm_head" in name)
    }
    assert weights.keys() == expected.keys()
    assert all(torch.equal(weights[name][...], tensor) for name, tensor in expected.items())


@given(shape=shapes(multiple=32))
@QUICK
def test_a_quantised_file_holds_every_matrix_rounded_as_ggml_rounds(shape, tmp_path):
    shape |= {"head_dim": 16, "group_size": 2}
    model = ragged_llama(**shape)
    write_gguf(model, TOKENIZER, "q8_0", tmp_path / "model.gguf")
    for name, weight in gguf_weights(tmp_path / "model.gguf", family_of(model.config)).items():
        original = model.state_dict()[name].numpy()
        if original.ndim == 2:
            original = dequantize(quantize(original, GGMLQuantizationType.Q8_0), GGMLQuantizationType.Q8_0)
        np.testing.assert_array_equal(weight[...], original)


def test_widths_are_one_number_where_they_are_one_and_arrays_where_not(tmp_path):
    write_gguf(ragged_llama([(2, 24), (2, 24)]), TOKENIZER, "f32", tmp_path / "uniform.gguf")
    write_gguf(ragged_llama([(2, 24), (1, 40)]), TOKENIZER, "f32", tmp_path / "ragged.gguf")
    uniform, ragged = contents(tmp_path / "uniform.gguf"), contents(tmp_path / "ragged.gguf")
    assert uniform["general.architecture"] == "llama"
    assert (uniform["llama.attention.head_count"], uniform["llama.feed_forward_length"]) == (4, 24)
    assert ragged["general.architecture"] == "deci"
    assert ragged["deci.attention.head_count"] == [4, 2]
    assert ragged["deci.attention.head_count_kv"] == [2, 1]
    assert ragged["deci.feed_forward_length"] == [24, 40]


def test_the_heads_turn_neighbouring_components():
    rows = torch.arange(8)  # two heads of four: halves (0 1 | 2 3)
    assert interleave(rows, 4).tolist() == [0, 2, 1, 3, 4, 6, 5, 7]
    assert torch.equal(deinterleave(interleave(rows, 4), 4), rows)


def test_names_map_there_and_back():
    for name in ragged_llama([(1, 8)], tied=False, bias=True).state_dict():
        assert transformers_name(gguf_name(name, llama.FAMILY), llama.FAMILY) == name
    assert gguf_name("model.layers.0.self_attn.rotary.weight", llama.FAMILY) is None


def test_q4_0_keeps_the_head_in_q8_0(tmp_path):
    write_gguf(ragged_llama([(2, 32)], head_dim=16, tied=False), TOKENIZER, "q4_0", tmp_path / "untied.gguf")
    write_gguf(ragged_llama([(2, 32)], head_dim=16, tied=True), TOKENIZER, "q4_0", tmp_path / "tied.gguf")
    untied, tied = (
        {tensor.name: tensor.tensor_type.name for tensor in GGUFReader(tmp_path / f"{name}.gguf").tensors}
        for name in ("untied", "tied")
    )
    assert (untied["output.weight"], untied["token_embd.weight"], tied["token_embd.weight"]) == ("Q8_0", "Q4_0", "Q8_0")
    assert (untied["blk.0.ffn_down.weight"], untied["blk.0.ffn_norm.weight"]) == ("Q4_0", "F32")
    assert "output.weight" not in tied


def test_a_folder_with_a_gguf_loads_as_the_model_it_holds(tmp_path):
    model = ragged_llama([(2, 24), (1, 40)])
    save_checkpoint(model, TOKENIZER, tmp_path)
    (tmp_path / "model.safetensors").unlink()
    write_gguf(model, TOKENIZER, "f32", tmp_path / "model.gguf")
    tokens = torch.arange(20)[None]
    assert torch.equal(load_model(tmp_path)(tokens).logits, model(tokens).logits)


@pytest.mark.parametrize("damage", ["truncated", "header", "empty", "renamed tensor"])
def test_a_broken_file_is_refused_by_name(damage, tmp_path):
    model = ragged_llama([(2, 24)])
    save_checkpoint(model, TOKENIZER, tmp_path)
    (tmp_path / "model.safetensors").unlink()
    file = tmp_path / "model.gguf"
    write_gguf(model, TOKENIZER, "f32", file)
    content = file.read_bytes()
    changed = {
        "truncated": content[:-1000],
        "header": b"GGUX" + content[4:],
        "empty": b"",
        "renamed tensor": content.replace(b"blk.0.ffn_down", b"blk.0.ffn_dawn"),
    }
    file.write_bytes(changed[damage])
    with pytest.raises(UserError, match=r"model\.gguf"):
        load_model(tmp_path)


@pytest.mark.parametrize(
    ("model", "quantisation", "words"),
    [
        (lambda: ragged_llama([(2, 24)]), "q8_0", "model.layers.0.mlp.down_proj.weight has rows of 24.*round_to"),
        (lambda: ragged_llama([(1, 32)]), "q4_0", "model.layers.0.self_attn.o_proj.weight has rows of 16.*gguf-f16"),
        (lambda: ragged_llama([(2, 32)], hidden=48), "q8_0", "embed_tokens.weight has rows of 48.*hidden_size"),
        (lambda: ragged_llama([(1, 8)], vocab=200), "f32", "embeddings have 200 rows.* id 299"),
        (lambda: ragged_llama([(0, 24), (1, 24)]), "f32", "skip of layer 0 in config.json.*no first layer without"),
        (lambda: ragged_llama([(1, 24), (1, 0)]), "f32", "skip of layer 1 in config.json.*no layer without an MLP"),
        (lambda: tiny_family("smollm3", vocab=300), "f32", "model_type = 'smollm3'.* no architecture in llama.cpp"),
    ],
)
def test_what_does_not_fit_is_named(model, quantisation, words, tmp_path):
    with pytest.raises(UserError, match=words):
        write_gguf(model(), TOKENIZER, quantisation, tmp_path / "model.gguf")


@pytest.mark.parametrize(
    ("rope", "words"),
    [
        (
            {"rope_type": "yarn", "rope_theta": 1e4, "factor": 2.0, "original_max_position_embeddings": 128},
            "rope_type = 'yarn'",
        )
    ],
)
def test_a_rope_that_is_not_written_is_named(rope, words, tmp_path):
    with pytest.raises(UserError, match=words):
        write_gguf(ragged_llama([(1, 8)], rope=rope), TOKENIZER, "f32", tmp_path / "model.gguf")


@pytest.mark.parametrize(
    ("family", "words"),
    [
        ("qwen3", r"model\.layers\.0\.self_attn\.q_norm\.weight: .*prune\.layout = uniform"),
        ("granite", r"embedding_multiplier of config\.json: .*prune\.layout = uniform"),
        ("qwen3 biased", r"self_attn\.q_proj\.bias has no place in llama\.cpp's architecture `qwen3`"),
    ],
)
def test_a_family_that_llama_cpp_has_otherwise_is_named(family, words, tmp_path, windows):
    model = tiny_family(family, vocab=300)
    if family in ("qwen3", "granite"):
        model, _ = prune(model, windows, prune_params(ratio=0.5))
    with pytest.raises(UserError, match=words):
        write_gguf(model, TOKENIZER, "f32", tmp_path / "model.gguf")


def test_a_weight_that_float16_does_not_hold_is_named(tmp_path):
    model = ragged_llama([(1, 8)])
    model.model.layers[0].mlp.up_proj.weight.data[3, 4] = -7e4
    with pytest.raises(UserError, match=r"layers\.0\.mlp\.up_proj\.weight holds values too large for float16"):
        write_gguf(model, TOKENIZER, "f16", tmp_path / "model.gguf")
    write_gguf(model, TOKENIZER, "f32", tmp_path / "model.gguf")


def test_an_activation_that_llama_cpp_has_not_is_named(tmp_path):
    model = ragged_llama([(1, 8)])
    model.config.hidden_act = "gelu"
    with pytest.raises(UserError, match="hidden_act = 'gelu'"):
        write_gguf(model, TOKENIZER, "f32", tmp_path / "model.gguf")


@pytest.mark.parametrize(
    "tokenizer",
    [
        tiny_tokenizer(),
        byte_level(pre_tokenizer=pre_tokenizers.ByteLevel(add_prefix_space=True)),
        byte_level(
            pre_tokenizer=pre_tokenizers.Sequence([pre_tokenizers.Punctuation(), pre_tokenizers.ByteLevel(False)])
        ),
    ],
    ids=["word level", "prefix space", "punctuation"],
)
def test_a_tokenizer_without_a_counterpart_is_refused(tokenizer, tmp_path):
    with pytest.raises(UserError, match=r"tokenizer\.json"):
        write_gguf(ragged_llama([(1, 8)]), tokenizer, "f32", tmp_path / "model.gguf")


def test_a_sentencepiece_tokenizer_is_written_with_scores_bytes_and_its_space(tmp_path):
    tokenizer = sentencepiece()
    write_gguf(ragged_llama([(1, 8)], vocab=400), tokenizer, "f32", tmp_path / "model.gguf")
    written = contents(tmp_path / "model.gguf")
    assert written["tokenizer.ggml.model"] == "llama"
    assert written["tokenizer.ggml.add_space_prefix"] is True
    assert written["tokenizer.ggml.add_bos_token"] is True
    kinds = written["tokenizer.ggml.token_type"]
    assert (kinds[0], kinds[1], kinds[3], kinds[-1]) == (2, 3, 6, 5)  # unknown, control, byte, unused
    scores = dict(zip(written["tokenizer.ggml.tokens"], written["tokenizer.ggml.scores"], strict=True))
    merges = json.loads(tokenizer.backend_tokenizer.to_str())["model"]["merges"]
    ranked = [scores[left + right] for left, right in merges]
    assert ranked == sorted(ranked, reverse=True)


def test_a_plain_llama_is_written_as_llama(tmp_path):
    model = tiny_llama(vocab=300)
    write_gguf(model, TOKENIZER, "f16", tmp_path / "model.gguf")
    assert contents(tmp_path / "model.gguf")["general.architecture"] == "llama"
    for name, weight in gguf_weights(tmp_path / "model.gguf", family_of(model.config)).items():
        expected = model.state_dict()[name]
        assert torch.equal(weight[...], expected.half().float() if expected.ndim == 2 else expected)


@pytest.mark.parametrize(
    ("before", "after", "written"),
    [
        ([], [], (False, False)),
        (["<s>"], [], (True, False)),
        ([], ["</s>"], (False, True)),
        (["<s>"], ["</s>"], (True, True)),
    ],
)
@pytest.mark.parametrize("has_bos", [True, False])
def test_what_a_tokenizer_adds_is_written(before, after, written, has_bos, tmp_path):
    tokenizer = sentencepiece()
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=" ".join([*before, "$A", *after]), special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    if not has_bos and not before:
        tokenizer.bos_token = None
    write_gguf(ragged_llama([(1, 8)], vocab=400), tokenizer, "f32", tmp_path / "model.gguf")
    found = contents(tmp_path / "model.gguf")
    assert (found["tokenizer.ggml.add_bos_token"], found["tokenizer.ggml.add_eos_token"]) == written
    assert found.get("tokenizer.ggml.bos_token_id") == tokenizer.bos_token_id


@pytest.mark.parametrize("tokenizer", [byte_level(), sentencepiece()], ids=["byte level", "SentencePiece"])
def test_special_tokens_and_merges_are_those_that_gguf_reads_from_the_saved_tokenizer(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    expected = SpecialVocab(tmp_path, load_merges=True)
    write_gguf(ragged_llama([(1, 8)], vocab=400), tokenizer, "f32", tmp_path / "model.gguf")
    found = contents(tmp_path / "model.gguf")
    names = {"unk": "unknown", "pad": "padding"}
    assert expected.special_token_ids and expected.merges
    for name, number in expected.special_token_ids.items():
        assert found[f"tokenizer.ggml.{names.get(name, name)}_token_id"] == number
    for name, added in expected.add_special_token.items():
        assert found[f"tokenizer.ggml.add_{name}_token"] is added
    assert found.get("tokenizer.ggml.merges", expected.merges) == expected.merges


def test_more_than_bos_and_eos_around_a_text_is_named(tmp_path):
    tokenizer = sentencepiece()
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> <s> $A", special_tokens=[("<s>", 1)]
    )
    with pytest.raises(UserError, match=r"adds the tokens \['<s>', '<s>'\] to a text.*at most one BOS"):
        write_gguf(ragged_llama([(1, 8)], vocab=400), tokenizer, "f32", tmp_path / "model.gguf")


def test_the_ends_of_generation_and_the_default_of_several_templates_are_written(tmp_path):
    tokenizer, model = byte_level(), ragged_llama([(1, 8)])
    tokenizer.chat_template = {"default": "{{ messages }}", "tools": "other"}
    for ends, written in ((None, (0, None, None)), (5, (0, 5, None)), ([7, 0, 9], (0, 7, 9))):
        model.generation_config.eos_token_id = ends
        write_gguf(model, tokenizer, "f32", tmp_path / "model.gguf")
        found = contents(tmp_path / "model.gguf")
        assert tuple(found.get(f"tokenizer.ggml.{name}_token_id") for name in ("eos", "eot", "eom")) == written
    assert found["tokenizer.chat_template"] == "{{ messages }}"


@pytest.mark.parametrize(("family", "context"), [("mistral", 256), ("mistral sliding", 6), ("qwen2 sliding", 6)])
def test_the_context_ends_with_the_sliding_window(family, context, tmp_path):
    write_gguf(tiny_family(family, vocab=300), TOKENIZER, "f32", tmp_path / "model.gguf")
    assert contents(tmp_path / "model.gguf")["llama.context_length"] == context


def test_a_sliding_window_that_no_layer_has_shortens_no_context(tmp_path):
    model = tiny_family("qwen2 sliding", vocab=300)
    model.config.layer_types = ["full_attention"] * 3
    write_gguf(model, TOKENIZER, "f32", tmp_path / "model.gguf")
    assert contents(tmp_path / "model.gguf")["llama.context_length"] == 256
