"""Every layout of a model folder gives the logits of from_pretrained, in memory and paged, or one line."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from helpers import tiny_family, tiny_llama, tiny_tokenizer
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from stages.common.errors import UserError
from stages.models.checkpoint import load_model, save_checkpoint
from stages.models.folder import INDEX, WEIGHTS
from stages.models.paging import load_paged, save_model

EMBEDDINGS, HEAD = "model.embed_tokens.weight", "lm_head.weight"
Tensors = dict[str, torch.Tensor]


def save(tensors: Tensors, file: Path) -> None:
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, file, metadata={"format": "pt"})


def change(folder: Path, edit: Callable[[Tensors], Tensors], name: str = WEIGHTS) -> None:
    """Write the model's tensors, edited, to file `name`."""
    save(edit(load_file(folder / WEIGHTS)), folder / name)


def configure(folder: Path, **values) -> None:
    """Set keys of config.json; None removes one."""
    config = json.loads((folder / "config.json").read_text()) | values
    (folder / "config.json").write_text(json.dumps({key: value for key, value in config.items() if value is not None}))


def shard(folder: Path, of: int, named: bool = True) -> None:
    """Replace the one file of weights by `of` shards and, if `named`, their index."""
    tensors = load_file(folder / WEIGHTS)
    (folder / WEIGHTS).unlink()
    weight_map = {}
    for number in range(of):
        name = f"model-{number + 1:05}-of-{of:05}.safetensors"
        part = {key: value for index, (key, value) in enumerate(tensors.items()) if index % of == number}
        save(part, folder / name)
        weight_map |= dict.fromkeys(part, name)
    if named:
        (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


def other_values(tensors: Tensors) -> Tensors:
    return {name: 2 * tensor for name, tensor in tensors.items()}


def beside(name: str) -> Callable[[Path], None]:
    return lambda folder: change(folder, other_values, name)


def stale_shards(folder: Path) -> None:
    """An earlier save in four shards beside the two that the index names."""
    change(folder, other_values, "earlier.safetensors")
    tensors = load_file(folder / "earlier.safetensors")
    for number in range(4):
        part = {key: value for index, (key, value) in enumerate(tensors.items()) if index % 4 == number}
        save(part, folder / f"model-{number + 1:05}-of-00004.safetensors")
    (folder / "earlier.safetensors").unlink()
    shard(folder, 2)


def stale_index(folder: Path) -> None:
    """One file saved over a folder of shards, which are gone and whose index stays."""
    whole = (folder / WEIGHTS).read_bytes()
    shard(folder, 2)
    for file in folder.glob("model-*"):
        file.unlink()
    (folder / WEIGHTS).write_bytes(whole)


def names_without_prefix(folder: Path) -> None:
    change(folder, lambda tensors: {name.removeprefix("model."): tensor for name, tensor in tensors.items()})


def names_with_prefix(folder: Path) -> None:
    change(folder, lambda tensors: {f"model.{key}" if key == HEAD else key: value for key, value in tensors.items()})


def tied(folder: Path, edit: Callable[[Tensors], Tensors]) -> None:
    configure(folder, tie_word_embeddings=True)
    change(folder, edit)


def head_alone(tensors: Tensors) -> Tensors:
    return {name: tensor for name, tensor in tensors.items() if name != EMBEDDINGS}


def equal_head(tensors: Tensors) -> Tensors:
    return tensors | {HEAD: tensors[EMBEDDINGS].clone()}


def head_equal_in_bfloat16(folder: Path) -> None:
    """A head that differs from the embeddings by less than the config's bfloat16 can hold."""
    configure(folder, dtype="bfloat16")
    tied(folder, lambda tensors: tensors | {HEAD: tensors[EMBEDDINGS].bfloat16().float()})


def buffers(tensors: Tensors) -> Tensors:
    return tensors | {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)}


def mixed_dtypes(folder: Path) -> None:
    configure(folder, dtype=None)
    change(folder, lambda tensors: {n: t if "norm" in n else t.bfloat16() for n, t in tensors.items()})


def float16_without_dtype(folder: Path) -> None:
    configure(folder, dtype=None)
    change(folder, lambda tensors: {name: tensor.half() for name, tensor in tensors.items()})


def named_by_config(folder: Path) -> None:
    beside("model.ema.safetensors")(folder)
    configure(folder, transformers_weights="model.ema.safetensors")


LAYOUTS: dict[str, Callable[[Path], None]] = {
    "one file": lambda folder: None,
    "shards": lambda folder: shard(folder, 3),
    "fp16 beside it": beside("model_fp16.safetensors"),
    "ema beside it": beside("model_ema.safetensors"),
    "consolidated beside it": beside("consolidated.safetensors"),
    "stale shards": stale_shards,
    "stale index": stale_index,
    "a file of weights that config.json names": named_by_config,
    "names without the decoder's prefix": names_without_prefix,
    "head with the decoder's prefix": names_with_prefix,
    "tied, the head alone": lambda folder: tied(folder, head_alone),
    "tied, the embeddings alone": lambda folder: tied(folder, lambda tensors: tensors.pop(HEAD) is None or tensors),
    "tied, an equal head": lambda folder: tied(folder, equal_head),
    "tied, another head": lambda folder: tied(folder, lambda tensors: tensors),
    "tied, a head that is equal in bfloat16": head_equal_in_bfloat16,
    "buffers of an earlier version": lambda folder: change(folder, buffers),
    "config without dtype": lambda folder: configure(folder, dtype=None),
    "config without dtype, weights in float16": float16_without_dtype,
    "config without dtype, weights of two": mixed_dtypes,
    "config in bfloat16, weights in float32": lambda folder: configure(folder, dtype="bfloat16"),
    "config in the old key": lambda folder: configure(folder, dtype=None, torch_dtype="float16"),
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "model"
    model = tiny_llama()
    with torch.no_grad():  # norms that bfloat16 cannot hold
        for name, weight in model.named_parameters():
            if "norm" in name:
                weight.uniform_(0.5, 1.5)
    save_checkpoint(model, tiny_tokenizer(), folder)
    return folder


@pytest.fixture
def folder(whole, tmp_path) -> Path:
    return shutil.copytree(whole, tmp_path / "model")


def logits(model, windows: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=windows).logits


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_loader_gives_the_logits_of_from_pretrained(layout, folder, tmp_path, windows):
    LAYOUTS[layout](folder)
    expected = AutoModelForCausalLM.from_pretrained(folder, dtype="auto").eval()
    loaded = load_model(folder)
    assert loaded.dtype == expected.dtype
    assert logits(loaded, windows).equal(logits(expected, windows))
    tied_weights = loaded.get_output_embeddings().weight is loaded.get_input_embeddings().weight
    assert loaded.config.tie_word_embeddings == tied_weights
    paged = load_paged(folder, tmp_path / "changed")
    assert (paged.dtype, paged.config.tie_word_embeddings) == (expected.dtype, tied_weights)
    save_model(paged, tiny_tokenizer(), tmp_path / "saved")
    for again in (load_model(tmp_path / "saved"), AutoModelForCausalLM.from_pretrained(tmp_path / "saved")):
        assert again.dtype == expected.dtype and again.config.tie_word_embeddings == tied_weights
        assert logits(again, windows).equal(logits(expected, windows))
    loaded.save_pretrained(tmp_path / "saved again")
    assert logits(load_model(tmp_path / "saved again"), windows).equal(logits(expected, windows))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("said", ["float32", "bfloat16", None])
def test_a_dtype_that_is_asked_for_is_made_of_the_stored_values(folder, tmp_path, dtype, said):
    stored = load_file(folder / WEIGHTS)
    configure(folder, dtype=said)
    save_model(load_paged(folder, tmp_path / "changed", dtype=dtype), tiny_tokenizer(), tmp_path / "saved")
    files = [load_file(file) for file in (tmp_path / "saved").glob("*.safetensors")]
    saved = {name: tensor for file in files for name, tensor in file.items()}
    assert saved.keys() == stored.keys()
    assert all(tensor.equal(stored[name].to(dtype)) for name, tensor in saved.items())


@pytest.mark.parametrize("family", ["qwen2", "qwen3 biased", "mistral"])
def test_other_families_without_a_prefix_and_tied(family, tmp_path, windows):
    folder = tmp_path / "model"
    save_checkpoint(tiny_family(family, tied=True), tiny_tokenizer(), folder)
    names_without_prefix(folder)
    expected = logits(AutoModelForCausalLM.from_pretrained(folder), windows)
    assert logits(load_model(folder), windows).equal(expected)
    save_model(load_paged(folder, tmp_path / "changed"), tiny_tokenizer(), tmp_path / "saved")
    assert logits(load_model(tmp_path / "saved"), windows).equal(expected)


def test_what_is_ignored_is_named_once(folder, tmp_path, capsys):
    for name in ("model_fp16.safetensors", "pytorch_model.bin", "old.gguf"):
        (folder / name).write_bytes(b"never read")
    load_paged(folder, tmp_path)
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "ignored" in line]
    assert line.endswith(
        "the weights are model.safetensors; ignored: model_fp16.safetensors, old.gguf, pytorch_model.bin"
    )


def only(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / WEIGHTS).rename(folder / name)


def extra(name: str, shape: tuple[int, ...] = (8,)) -> Callable[[Path], object]:
    return lambda folder: change(folder, lambda tensors: tensors | {name: torch.ones(shape)})


def index(content: object) -> Callable[[Path], object]:
    def write(folder: Path) -> None:
        shard(folder, 2)
        (folder / INDEX).write_text(content if isinstance(content, str) else json.dumps(content))

    return write


def without(name: str) -> Callable[[Path], object]:
    return lambda folder: change(folder, lambda tensors: {k: v for k, v in tensors.items() if k != name})


def with_tensor(name: str, edit: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[Path], object]:
    return lambda folder: change(folder, lambda tensors: tensors | {name: edit(tensors[name])})


REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    "no weights": (lambda folder: (folder / WEIGHTS).unlink(), "has no weights: no model.safetensors, no model.safe"),
    "one file of another name": (only("model_fp16.safetensors"), "has no weights: .*; found model_fp16.safetensors"),
    "shards without an index": (
        lambda folder: shard(folder, 2, named=False), "has no weights: .*found model-00001-of-00002.*, model-00002-of",
    ),
    "two GGUF files": (
        lambda folder: (only("a.gguf")(folder), (folder / "b.gguf").touch()), "has no weights: .*found a.gguf, b.gguf",
    ),
    "an index that is no JSON": (index("{"), rf"{INDEX} is not valid JSON"),
    "an index that is a list": (index([1]), rf"{INDEX} holds a list; expected a JSON object"),
    "an index without weight_map": (index({"metadata": {}}), rf"{INDEX} has no weight_map"),
    "an index whose weight_map is empty": (index({"weight_map": {}}), rf"{INDEX} has no weight_map"),
    "an index that names a number": (index({"weight_map": {"a": 5}}), rf"{INDEX} names the file 5"),
    "an index that leads out": (index({"weight_map": {"a": "../x.safetensors"}}), "names the file '../x.safetensors'"),
    "an index that names a pickle": (index({"weight_map": {"a": "pytorch_model.bin"}}), "names the file 'pytorch_mo"),
    "an index of a missing file": (index({"weight_map": {"a": "b.safetensors"}}), "lacks weights that .*: b.safe"),
    "a config that names a pickle": (
        lambda folder: configure(folder, transformers_weights="pytorch_model.bin"), "config.json names the file 'pyt",
    ),
    "an adapter": (lambda folder: (folder / "adapter_config.json").write_text("{}"), "holds an adapter"),
    "fewer layers in the config": (
        lambda folder: configure(folder, num_hidden_layers=1),
        r"holds tensors that config.json has no place for: model.layers.1.input_layernorm.weight, .* and 13 more",
    ),
    "more layers in the config": (
        lambda folder: configure(folder, num_hidden_layers=4), r"lacks weights: model.layers.3.input_layernorm.weigh",
    ),
    "a bias that the config has not": (
        extra("model.layers.0.self_attn.q_proj.bias", (32,)), "no place for: model.layers.0.self_attn.q_proj.bias$",
    ),
    "a tensor of something else": (extra("value_head.weight"), "no place for: value_head.weight$"),
    "a tensor under two names": (extra("norm.weight", (32,)), "holds model.norm.weight twice"),
    "no embeddings": (without(EMBEDDINGS), f"lacks weights: {EMBEDDINGS}$"),
    "no head": (without(HEAD), f"lacks weights: {HEAD}$"),
    "another shape": (
        with_tensor("model.norm.weight", lambda weight: weight[:8]),
        r"model.norm.weight has shape \(8,\), but config.json asks for \(32,\)",
    ),
    "integer weights": (
        with_tensor("model.norm.weight", lambda weight: weight.int()), "model.norm.weight holds numbers of type int32",
    ),
}  # fmt: skip


@pytest.mark.parametrize("damage", REFUSED)
def test_every_loader_refuses_what_is_ambiguous_or_does_not_fit(damage, folder, tmp_path):
    act, message = REFUSED[damage]
    act(folder)
    for load in (load_model, lambda folder: load_paged(folder, tmp_path / "changed")):
        with pytest.raises(UserError, match=message) as error:
            load(folder)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", [WEIGHTS, "small.safetensors"])
def test_a_pickle_is_never_opened(name, folder, monkeypatch):
    """Of a quantised model transformers finds the files itself."""
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("a pickle was opened"))
    configure(folder, quantization_config={"quant_method": "torchao", "quant_type": "int8_weight_only"})
    (folder / WEIGHTS).unlink()
    save({"other": torch.ones(1)}, folder / name)
    torch.save({"model.norm.weight": torch.ones(32)}, folder / "pytorch_model.bin")
    with pytest.raises(UserError):
        load_model(folder)
