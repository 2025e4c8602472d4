"""A GGUF header is believed only as far as the file goes, and damage is one line that names the file."""

import struct

import numpy as np
import pytest
import torch
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFReader, GGUFWriter
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers.integrations.gguf.dequant import dequantize as dequantize_in_torch

from stages.common.errors import UserError
from stages.models.families import llama
from stages.models.gguf_file import DEQUANTISED, gguf_weights
from stages.models.gguf_header import read_header

UINT32, STRING, ARRAY = 4, 8, 9
HUGE = 1 << 60


def text(content: bytes) -> bytes:
    return struct.pack("<Q", len(content)) + content


def field(kind: int, value: bytes, key: bytes = b"k") -> bytes:
    return text(key) + struct.pack("<I", kind) + value


def tensor(name=b"t", dimensions=(32,), kind=0, offset=0, count=None) -> bytes:
    shape = struct.pack(f"<{len(dimensions)}Q", *dimensions)
    return text(name) + struct.pack("<I", count or len(dimensions)) + shape + struct.pack("<IQ", kind, offset)


def content(fields=(), tensors=(), counts=None, version=3, data=128) -> bytes:
    header = b"GGUF" + struct.pack("<IQQ", version, *(counts or (len(tensors), len(fields))))
    header += b"".join(fields) + b"".join(tensors)
    return header + bytes(-len(header) % 32 + data)


BOMB = b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + field(ARRAY, struct.pack("<IQ", STRING, 10**8))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A file of every kind of field and two tensors, written by gguf-py."""
    file = tmp_path_factory.mktemp("gguf") / "whole.gguf"
    writer = GGUFWriter(file, "llama")
    writer.add_name("naïve")
    writer.add_embedding_length(32)
    writer.add_head_count(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_token_list(["a", "bc", ""])
    writer.add_token_types([1, 2, 3])
    writer.add_add_bos_token(True)
    writer.add_tensor("output_norm.weight", np.arange(32, dtype=np.float32))
    writer.add_tensor("token_embd.weight", np.ones((3, 32), dtype=np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def test_a_whole_file_reads_as_gguf_py_reads_it(whole):
    header, reader = read_header(whole), GGUFReader(whole)
    for key, value in reader.fields.items():
        if key.startswith("GGUF."):
            continue
        if key in header.metadata:
            assert header.metadata[key] == value.contents(), key
        if key in header.lengths:
            assert header.lengths[key] == len(value.contents())
        assert key in header.metadata or key in header.lengths
    assert header.lengths == {"tokenizer.ggml.tokens": 3, "tokenizer.ggml.token_type": 3}
    for found in reader.tensors:
        stored = header.tensors[found.name]
        assert (stored.start, stored.nbytes, stored.kind) == (found.data_offset, found.n_bytes, found.tensor_type.name)
        assert stored.shape == tuple(reversed(found.shape.tolist()))


def test_a_count_beyond_the_file_costs_no_time(tmp_path):
    file = tmp_path / "bomb.gguf"
    file.write_bytes(BOMB)
    assert len(BOMB) == 49
    with pytest.raises(UserError, match=r"bomb\.gguf is truncated or corrupt \(100,000,000 entries of k.*; fetch or"):
        read_header(file)


@pytest.mark.parametrize(
    ("damaged", "words"),
    [
        (b"", "does not begin with GGUF"),
        (b"GGUF", "ends within its header"),
        (b"GGML" + bytes(40), "does not begin with GGUF"),
        (content(version=1), "version 1; expected one of: 2, 3"),
        (content(version=3 << 24), "version 50331648; .*little-endian"),
        (content(counts=(HUGE, 0)), "tensors; expected at most"),
        (content(counts=(0, HUGE)), "metadata fields; expected at most"),
        (content(counts=(100, 0)), "100 tensors do not fit in 160 bytes"),
        (content([field(STRING, struct.pack("<Q", HUGE))]), "k is a string of .* bytes; expected at most"),
        (content([field(STRING, struct.pack("<Q", 1000))]), "ends within k"),
        (content([field(STRING, text(b"\xff"))]), "k is not UTF-8"),
        (content([field(77, b"")]), "k has the unknown type 77"),
        (content([field(ARRAY, struct.pack("<IQ", ARRAY, 1))]), "k is an array of type 9"),
        (content([field(ARRAY, struct.pack("<IQ", UINT32, 1000))]), "1,000 entries of k do not fit|ends within"),
        (content([field(ARRAY, struct.pack("<IQ", STRING, HUGE))]), "entries of k; expected at most"),
        (content([field(UINT32, bytes(4))] * 2), "k appears twice"),
        (
            content([field(UINT32, struct.pack("<I", 3), b"general.alignment")]),
            "general.alignment = 3; expected a power",
        ),
        (content(tensors=[tensor(), tensor()]), "tensor t appears twice"),
        (content(tensors=[tensor(count=10**9)]), "t has 1000000000 dimensions; expected 1 to 4"),
        (content(tensors=[tensor(kind=4)]), "t has the unknown type 4"),
        (content(tensors=[tensor(dimensions=(0,))]), "t has rows of 0"),
        (content(tensors=[tensor(dimensions=(33,), kind=8)]), "t has rows of 33; expected a multiple of 32"),
        (content(tensors=[tensor(dimensions=(HUGE, HUGE))]), "tensor t ends at byte"),
        (content(tensors=[tensor(offset=HUGE)]), "tensor t ends at byte"),
        (content(tensors=[tensor()], data=127), "tensor t ends at byte 192, the file at 191"),
    ],
)
def test_damage_is_named(damaged, words, tmp_path):
    file = tmp_path / "broken.gguf"
    file.write_bytes(damaged)
    with pytest.raises(UserError, match=rf"broken\.gguf is truncated or corrupt \(.*({words})"):
        read_header(file)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_whatever_is_cut_or_flipped_is_read_or_refused(data, whole, tmp_path):
    original = whole.read_bytes()
    damaged = bytearray(original[: data.draw(st.integers(0, len(original)))])
    for place in data.draw(st.lists(st.integers(0, max(0, len(damaged) - 1)), max_size=3)) if damaged else []:
        damaged[place] = data.draw(st.integers(0, 255))
    file = tmp_path / "damaged.gguf"
    file.write_bytes(damaged)
    try:
        for weight in gguf_weights(file, llama.FAMILY).values():
            weight[...]
    except UserError as error:
        assert str(error).startswith(str(file))


def test_what_is_no_file_is_named(tmp_path):
    for path in (tmp_path, tmp_path / "none.gguf"):
        with pytest.raises(UserError, match=r"cannot be read .*; expected a GGUF file"):
            read_header(path)


@pytest.mark.parametrize("kind", [kind for kind in DEQUANTISED if kind not in ("Q5_0", "Q5_1")])  # not in that code
def test_every_type_dequantises_as_transformers_torch_code_does(kind, tmp_path):
    number = GGMLQuantizationType[kind]
    block, size = GGML_QUANT_SIZES[number]
    blocks = np.random.default_rng(0).integers(0, 64, (3, 2 * size * (256 // block)), dtype=np.uint8)
    file = tmp_path / "model.gguf"
    writer = GGUFWriter(file, "llama")
    writer.add_embedding_length(512)
    writer.add_head_count(8)
    writer.add_tensor("blk.0.ffn_up.weight", blocks, raw_dtype=number)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    found = gguf_weights(file, llama.FAMILY)["model.layers.0.mlp.up_proj.weight"]
    assert found.shape == (3, 512)
    flat = torch.from_numpy(blocks).reshape(-1)
    floats = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
    expected = flat.view(floats[kind]).float() if kind in floats else dequantize_in_torch(flat, int(number))
    torch.testing.assert_close(found[...], expected.reshape(3, 512), rtol=1e-6, atol=0)


def test_a_type_that_is_not_dequantised_is_named(tmp_path):
    file = tmp_path / "model.gguf"
    writer = GGUFWriter(file, "llama")
    writer.add_embedding_length(256)
    writer.add_head_count(8)
    writer.add_tensor("output.weight", np.zeros((1, 66), np.uint8), raw_dtype=GGMLQuantizationType.IQ2_XXS)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(UserError, match=r"model\.gguf: tensor output\.weight is IQ2_XXS; expected one of: F32, F16"):
        gguf_weights(file, llama.FAMILY)
