"""Damaged model folders: stage base says what is wrong in one line, before any work, and keeps the earlier model.

A row is a damage to a sound folder and what the line says of it.
"""

import json
import os
import re
import shutil
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from campaign import attempt
from helpers import ROOT, tiny_llama, tiny_tokenizer
from safetensors.torch import load_file, save_file

from stages.base import __main__ as stage
from stages.common.stage import run_stage
from stages.models.checkpoint import save_checkpoint

PARAMS = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
CONFIG, INDEX, WEIGHTS = "config.json", "model.safetensors.index.json", "model.safetensors"
TOKENIZER, SETTINGS, GENERATION = "tokenizer.json", "tokenizer_config.json", "generation_config.json"
Damage = Callable[[Path], object]


def write(name: str, content: Any) -> Damage:
    """Replace a file by text, by bytes, or by a value as JSON."""

    def damage(folder: Path) -> None:
        content_ = content if isinstance(content, str | bytes) else json.dumps(content)
        (folder / name).write_bytes(content_ if isinstance(content_, bytes) else content_.encode())

    return damage


def config(**values: Any) -> Damage:
    """Set keys of config.json."""
    return lambda folder: write(CONFIG, json.loads((folder / CONFIG).read_text()) | values)(folder)


def without(*names: str) -> Damage:
    return lambda folder: [(folder / name).unlink() for name in names]


def tensors(edit: Callable[[dict[str, torch.Tensor]], object]) -> Damage:
    """Edit the weights in place."""

    def damage(folder: Path) -> None:
        content = load_file(folder / WEIGHTS)
        edit(content)
        save_file(content, folder / WEIGHTS, metadata={"format": "pt"})

    return damage


def cut(name: str, keep: int) -> Damage:
    """Keep the first `keep` bytes of a file, or all but the last -`keep`."""
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:keep])


def header(content: bytes, length: int | None = None) -> Damage:
    """Write a safetensors file of a header and no data; the length may lie."""
    return write(WEIGHTS, (len(content) if length is None else length).to_bytes(8, "little") + content)


def link(name: str, target: str) -> Damage:
    """Replace a file by a link."""

    def damage(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(target)

    return damage


def outside(name: str) -> Damage:
    """Replace a file by a link to a sound copy of it outside the folder."""

    def damage(folder: Path) -> None:
        copy = folder.parent / f"outside {name}"
        copy.write_bytes((folder / name).read_bytes() if (folder / name).is_file() else b"secret")
        link(name, str(copy))(folder)

    return damage


def special(make: Callable[[Path], object], name: str) -> Damage:
    """Replace a file by what `make` makes in its place."""

    def damage(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        make(folder / name)

    return damage


def bound(path: Path) -> None:
    """Make a socket; its name may be longer than a socket's path."""
    before = Path.cwd()
    os.chdir(path.parent)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path.name)
    os.chdir(before)


def sharded(weight_map: Any) -> Damage:
    return lambda folder: (
        (folder / WEIGHTS).rename(folder / "model-00001-of-00001.safetensors"),
        write(INDEX, weight_map)(folder),
    )


def rope(**values: Any) -> Damage:
    return config(rope_parameters={"rope_type": "default", "rope_theta": 10000.0} | values)


def poison(value: float) -> Damage:
    return tensors(lambda content: content["model.norm.weight"].__setitem__(3, value))


DEEP = "[" * 100_000
DAMAGES: dict[str, tuple[Damage, str]] = {
    "no config": (without(CONFIG), "is not a checkpoint: config.json is missing"),
    "config is a list": (write(CONFIG, []), "config.json holds a list; expected a JSON object"),
    "config is null": (write(CONFIG, None), "config.json holds a NoneType; expected a JSON object"),
    "config is empty": (write(CONFIG, ""), "config.json is not valid JSON: Expecting value"),
    "config is cut": (cut(CONFIG, 40), "config.json is not valid JSON"),
    "config is binary": (write(CONFIG, b"\xff\xfe\x00"), "config.json is not valid JSON: 'utf-8' codec"),
    "config is deep": (write(CONFIG, DEEP), "config.json is not valid JSON: maximum recursion depth exceeded"),
    "config is another kind": (write(CONFIG, {"model_type": "gpt2"}), "model_type = 'gpt2' is not supported; expected"),
    "model type is a list": (config(model_type=["llama"]), "model_type = .'llama'. is not supported"),
    "no model type": (config(model_type=None), "model_type = None is not supported"),
    "head_dim 0": (config(head_dim=0), "head_dim = 0; expected at least 1"),
    "head_dim negative": (config(head_dim=-8), "head_dim = -8; expected at least 1"),
    "head_dim odd": (config(head_dim=7), "not a valid config for llama: .*RoPE requires an even rotary dimension"),
    "unknown hidden_act": (config(hidden_act="swoosh"), "hidden_act = 'swoosh'; expected one of: .*silu"),
    "no layers": (config(num_hidden_layers=0), "num_hidden_layers = 0; expected at least 1"),
    "layers in words": (config(num_hidden_layers="three"), "not a valid config for llama: .*num_hidden_layers.* int"),
    "a billion layers": (config(num_hidden_layers=10**9), "num_hidden_layers = 1000000000; expected at most 10000"),
    "no heads": (config(num_attention_heads=0), "num_attention_heads = 0; expected at least 1"),
    "heads that do not divide": (config(num_key_value_heads=3), "num_key_value_heads = 3; expected a divisor of n"),
    "no vocabulary": (config(vocab_size=0), "vocab_size = 0; expected at least 1"),
    "another vocabulary": (config(vocab_size=60), "token ids go up to 63, .*; expected at most 59"),
    "no hidden size": (config(hidden_size=0), "hidden_size = 0; expected at least 1"),
    "another hidden size": (config(hidden_size=40), r"has shape \(64, 32\), but config.json asks for \(64, 40\)"),
    "no MLP": (config(intermediate_size=0), "intermediate_size = 0; expected at least 1"),
    "no positions": (config(max_position_embeddings=0), "max_position_embeddings = 0; expected at least 1"),
    "a negative epsilon": (config(rms_norm_eps=-1.0), "rms_norm_eps = -1.0; expected a number of at least 0"),
    "rope_theta 0": (rope(rope_theta=0), "rope_theta = 0; expected a number above 0"),
    "rope_theta of an earlier version 0": (config(rope_parameters=None, rope_theta=0), "rope_theta = 0; expected a n"),
    "unknown rope type": (rope(rope_type="spiral"), "rope_type = 'spiral'; expected one of: default, linear"),
    "rope without its factor": (rope(rope_type="yarn"), "Missing required keys in `rope_parameters`"),
    "unknown dtype": (config(dtype="float5"), "is not a valid config for llama: .*float5"),
    "integer dtype": (config(dtype="int8"), "dtype = torch.int8; expected a floating-point type"),
    "eos beyond the vocabulary": (config(eos_token_id=999), "eos_token_id = 999; expected less than vocab_size = 64"),
    "eos in a list": (config(eos_token_id=[0, 64]), "eos_token_id = 64; expected less than vocab_size = 64"),
    "padding beyond the vocabulary": (config(pad_token_id=64), "pad_token_id = 64; expected less than vocab_size = 64"),
    "generation ends beyond the vocabulary": (
        write("generation_config.json", {"eos_token_id": [0, 999]}),
        "generation_config.json: eos_token_id = 999; expected less than vocab_size = 64",
    ),
    "generation pads with a negative token": (
        write("generation_config.json", {"pad_token_id": -5}),
        "generation_config.json: pad_token_id = -5; expected less than vocab_size = 64",
    ),
    "quantised": (config(quantization_config={"quant_method": "gptq", "bits": 4}), "is quantised; expected weights in"),
    "quantisation is a number": (config(quantization_config=5), "quantization_config = 5; expected a mapping"),
    "an adapter": (write("adapter_config.json", {}), r"holds an adapter \(adapter_config.json\); merge it into"),
    "fewer layers than weights": (config(num_hidden_layers=1), "tensors that config.json has no place for: model.l"),
    "more layers than weights": (config(num_hidden_layers=4), "lacks weights: model.layers.3."),
    "no weights": (without(WEIGHTS), "has no weights: no model.safetensors"),
    "weights of another name": (special(lambda path: save_file({}, path.with_stem("ema")), WEIGHTS), "found ema"),
    "weights are empty": (write(WEIGHTS, b""), "model.safetensors is truncated or corrupt"),
    "weights are cut in the header": (cut(WEIGHTS, 100), "model.safetensors is truncated or corrupt"),
    "weights are cut at the end": (cut(WEIGHTS, -1), "model.safetensors is truncated or corrupt"),
    "weights are text": (write(WEIGHTS, "version https://git-lfs.github.com/spec/v1\n"), "truncated or corrupt"),
    "a header of 2^60 bytes": (header(b"{}", 2**60), "model.safetensors is truncated or corrupt"),
    "a header that is no JSON": (header(b"{{{"), "model.safetensors is truncated or corrupt"),
    "a header that is deep": (header(DEEP.encode()), "model.safetensors is truncated or corrupt"),
    "a tensor beyond the file": (
        header(b'{"a": {"dtype": "F32", "shape": [99], "data_offsets": [0, 396]}}'), "truncated or corrupt",
    ),
    "NaN": (poison(float("nan")), "model.norm.weight holds values that are not finite"),
    "infinity": (poison(float("inf")), "model.norm.weight holds values that are not finite"),
    "integer weights": (
        tensors(lambda content: content.update({"lm_head.weight": content["lm_head.weight"].to(torch.int8)})),
        "lm_head.weight holds numbers of type int8; expected floating point",
    ),
    "a weight is missing": (
        tensors(lambda content: content.pop("model.layers.1.mlp.up_proj.weight")), "lacks weights: model.layers.1.mlp",
    ),
    "a weight too many": (
        tensors(lambda content: content.update({"model.layers.0.mlp.up_proj.bias": torch.ones(24)})),
        "tensors that config.json has no place for: model.layers.0.mlp.up_proj.bias",
    ),
    "index is no JSON": (sharded("{"), "index.json is not valid JSON"),
    "index is a list": (sharded([]), "index.json holds a list"),
    "index without weight_map": (sharded({}), "index.json has no weight_map"),
    "index of a list": (sharded({"weight_map": ["model-00001-of-00001.safetensors"]}), "index.json has no weight_map"),
    "index of a number": (sharded({"weight_map": {"a": 1}}), "index.json names the file 1; expected a "),
    "index of a missing file": (sharded({"weight_map": {"a": "b.safetensors"}}), "index.json names: b.safetensors"),
    "index of a file outside": (sharded({"weight_map": {"a": "../b.safetensors"}}), "names the file '../b.safe"),
    "index of an absolute path": (sharded({"weight_map": {"a": "/b.safetensors"}}), "names the file '/b.safetensors'"),
    "index of a pickle": (sharded({"weight_map": {"a": "pytorch_model.bin"}}), "names the file 'pytorch_model.bin'"),
    "no tokenizer": (without(TOKENIZER), "has no tokenizer: expected one of the files tokenizer.json"),
    "no tokenizer at all": (without(TOKENIZER, SETTINGS), "has no tokenizer: expected one of the files tokenizer.json"),
    "tokenizer is cut": (cut(TOKENIZER, 200), "tokenizer.json is not valid JSON"),
    "tokenizer is a list": (write(TOKENIZER, []), "tokenizer.json holds a list"),
    "tokenizer is empty": (write(TOKENIZER, {}), "cannot load a tokenizer from tokenizer.json"),
    "tokenizer is another thing": (write(TOKENIZER, {"model": 5}), "cannot load a tokenizer from tokenizer.json"),
    "tokenizer settings are a list": (write(SETTINGS, []), "tokenizer_config.json holds a list"),
    "tokenizer settings are cut": (cut(SETTINGS, 20), "tokenizer_config.json is not valid JSON"),
    "tokenizer of a number": (write(SETTINGS, {"tokenizer_class": 5}), "cannot load a tokenizer from tokenizer.json"),
    "tokenizer runs code": (
        write(SETTINGS, {"tokenizer_class": "X", "auto_map": {"AutoTokenizer": ["x.X", None]}}), "contains custom code",
    ),
    "tokenizer larger than the embeddings": (
        lambda folder: save_checkpoint(tiny_llama(vocab=40), tiny_tokenizer(), folder), "token ids go up to 63, ",
    ),
    "generation config is cut": (cut(GENERATION, 10), "generation_config.json is not valid JSON"),
    "generation config is a list": (write(GENERATION, []), "generation_config.json holds a list"),
    "generation config of words": (write(GENERATION, {"max_new_tokens": "x"}), "is not a valid generation config"),
    "config is a folder": (special(Path.mkdir, CONFIG), "config.json is a folder; expected a regular file"),
    "config is a pipe": (special(os.mkfifo, CONFIG), "config.json is a special file; expected a regular file"),
    "weights are a pipe": (special(os.mkfifo, WEIGHTS), "model.safetensors is a special file"),
    "weights are a socket": (special(bound, WEIGHTS), "model.safetensors is a special file"),
    "weights are a folder": (special(Path.mkdir, WEIGHTS), "model.safetensors is a folder"),
    "weights are a dangling link": (link(WEIGHTS, "nowhere"), "model.safetensors is a broken link"),
    "weights are a link to themselves": (link(WEIGHTS, WEIGHTS), "model.safetensors is a broken link"),
    "weights are a link outside": (outside(WEIGHTS), "model.safetensors is a link out of its folder"),
    "weights are a device": (link(WEIGHTS, "/dev/zero"), "model.safetensors is a special file"),
    "card is a link outside": (outside("README.md"), "README.md is a link out of its folder"),
    "card is a pipe": (special(os.mkfifo, "README.md"), "README.md is a special file"),
    "tokenizer is a link outside": (outside(TOKENIZER), "tokenizer.json is a link out of its folder"),
    "generation config is a link outside": (outside(GENERATION), "generation_config.json is a link out of its folder"),
    "config is a link outside": (outside(CONFIG), "config.json is a link out of its folder"),
}  # fmt: skip

SOUND: dict[str, Damage] = {
    "as it is": lambda folder: None,
    "links that stay inside": lambda folder: (
        (folder / WEIGHTS).rename(folder / "weights.bin"), link(WEIGHTS, "weights.bin")(folder),
    ),
    "no generation config": without(GENERATION),
    "no tokenizer_config.json": without(SETTINGS),
    "padding of -1": config(pad_token_id=-1),
    "a pickle beside the weights": write("pytorch_model.bin", b"\x80\x04never opened"),
    "a dangling link that nothing reads": link("old.safetensors", "nowhere"),
}  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "model"
    save_checkpoint(tiny_llama(), tiny_tokenizer(), folder)
    return folder


@pytest.fixture
def project(whole, tmp_path, monkeypatch) -> Path:
    """A project folder with an earlier model in models/base, whose base.path is a copy of a sound model."""
    shutil.copytree(whole, tmp_path / "model")
    for name in ("models/base", "data/text"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "models/base/kept").touch()
    base = PARAMS["base"] | {"source": "path", "path": "model", "dtype": "float32"}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump({"run": PARAMS["run"], "base": base}), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(stage, "setup_torch", lambda *_: torch.device("cpu"))  # which holds for the whole process
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield tmp_path
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_model_is_one_line_and_keeps_the_earlier_one(damage, project, capsys):
    act, message = DAMAGES[damage]
    act(project / "model")
    capsys.readouterr()
    with attempt("models, damaged"):
        with pytest.raises(SystemExit) as left:
            run_stage("base", stage.main)
        said = capsys.readouterr()
        lines = [line for line in said.err.splitlines() if line.startswith("espalier: ")]
        assert left.value.code == 2, said.err
        assert len(lines) == 1 and len(lines[0]) < 1000 and "Traceback" not in said.err
        assert re.search(message, lines[0]), lines[0]
        assert [file.name for file in (project / "models").rglob("*")] == ["base", "kept"]
        assert not (project / "metrics").exists()


@pytest.mark.parametrize("layout", SOUND)
def test_a_sound_model_is_taken(layout, project):
    SOUND[layout](project / "model")
    with attempt("models, sound in an odd layout"):
        run_stage("base", stage.main)
        assert (project / "models/base/tokenizer.json").is_file() and not (project / "models/base/kept").exists()
