"""Which files of a model folder are read: transformers' rule, and no link or name that leads out of the folder."""

import json
import sys
from pathlib import Path
from typing import Any

from stages.common.errors import UserError

CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
ADAPTER_CONFIG, GENERATION_CONFIG = "adapter_config.json", "generation_config.json"
TOKENIZER_SETTINGS = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
VOCABULARIES = ("tokenizer.json", "tokenizer.model", "vocab.json")  # one of them makes a tokenizer
# What transformers, or the stage base, reads of a folder beside its weights.
SMALL_FILES = (
    "*.json", "merges.txt", "chat_template.jinja", "additional_chat_templates/*.jinja", "tokenizer.model", "README.md",
)  # fmt: skip
OTHER_WEIGHTS = ("*.safetensors", "*.gguf", "pytorch_model*", "*.pth")
GGUF = ".gguf"
JSON_LIMIT = 100 * 2**20  # bytes; the largest tokenizers are a third of that


def weight_files(folder: Path) -> list[Path]:
    """Return the files that hold the weights of `folder`, as transformers chooses them.

    That is what config.json names as transformers_weights, else model.safetensors, else the files of its index. A
    folder without safetensors may hold one GGUF instead, as an export for llama.cpp does. Raises UserError, naming the
    file, where there is none of these, where one is missing or is no regular file, and where GGUF files are several.
    """
    named = read_json(folder / CONFIG).get("transformers_weights")
    for name in [named] if named else [WEIGHTS, INDEX]:
        path = folder / file_name(name, folder / CONFIG)
        if named or path.is_symlink() or path.exists():
            return indexed_files(path) if path.name.endswith(".index.json") else [regular_file(path)]
    found = sorted(file for pattern in ("*.safetensors", f"*{GGUF}") for file in folder.glob(pattern))
    if len(found) == 1 and found[0].suffix == GGUF:
        return [regular_file(found[0])]
    others = f"; found {', '.join(file.name for file in found)}" if found else ""
    raise UserError(f"{folder} has no weights: no {WEIGHTS}, no {INDEX}{others}")


def indexed_files(index: Path) -> list[Path]:
    """Return the files that `index` names, sorted; UserError, naming it, where it is damaged or a file is missing."""
    names = indexed_names(index)
    if missing := [name for name in names if not (index.parent / name).exists()]:
        raise UserError(f"{index.parent} lacks weights that {index.name} names: {listed(missing)}")
    return [regular_file(index.parent / name) for name in names]


def indexed_names(index: Path) -> list[str]:
    """Return the names of the files in `index`, sorted; UserError, naming it, where it is damaged."""
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise UserError(f"{index} has no weight_map, which names the file of each tensor")
    return sorted({file_name(name, index) for name in weight_map.values()})


def file_name(name: Any, source: Path) -> str:
    """Return `name`, which `source` gives a file of weights; UserError unless it is one in the same folder."""
    if not isinstance(name, str) or Path(name).name != name or not name.endswith((".safetensors", ".index.json")):
        raise UserError(f"{source} names the file {name!r}; expected a *.safetensors file in the same folder")
    return name


def note_ignored(folder: Path, used: list[Path]) -> None:
    """Print one line that names the other files of weights in `folder`, if there are any."""
    found = {file.name for pattern in OTHER_WEIGHTS for file in folder.glob(pattern)}
    if ignored := sorted(found - {file.name for file in used} - {INDEX, "pytorch_model.bin.index.json"}):
        chosen = used[0].name if len(used) == 1 else f"those of {INDEX}"
        print(f"{folder}: the weights are {chosen}; ignored: {listed(ignored)}", file=sys.stderr, flush=True)


def small_files(folder: Path) -> list[Path]:
    """Return the files beside the weights that transformers, or the stage base, reads in `folder`."""
    return sorted(file for pattern in SMALL_FILES for file in folder.glob(pattern))


def check_inside(folder: Path, files: list[Path]) -> None:
    """Raise UserError unless each of `files` is a regular file inside `folder`, after its links.

    The links of a snapshot in a hub's cache may lead to the blobs of that cache.
    """
    roots = [folder.resolve()]
    if roots[0].parent.name == "snapshots":
        repository = roots[0].parents[1]
        roots += [repository / "blobs", repository.parent / "blobs"]
    for file in files:
        target = regular_file(file).resolve()
        if not any(target.is_relative_to(root) for root in roots):
            raise UserError(f"{file} is a link out of its folder, to {target}; put a copy of the file in its place")


def regular_file(path: Path) -> Path:
    """Return `path`; UserError unless it is, after links, a regular file: no folder, pipe, or link to nothing."""
    if not path.is_file():
        kind = "a folder" if path.is_dir() else "a special file" if path.exists() else "missing"
        kind = "a broken link" if path.is_symlink() and not path.exists() else kind
        raise UserError(f"{path} is {kind}; expected a regular file")
    return path


def read_json(path: Path) -> dict[str, Any]:
    """Return the JSON object in `path`; UserError, naming it, where it is none or is larger than any real one."""
    size = regular_file(path).stat().st_size
    if size > JSON_LIMIT:
        raise UserError(f"{path} has {size} bytes; expected a JSON file of at most {JSON_LIMIT}")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not valid JSON: {error}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} holds a {type(content).__name__}; expected a JSON object")
    return content


def listed(names: list[str], most: int = 5) -> str:
    """Return the first `most` of `names`, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def one_line(error: BaseException, most: int = 300) -> str:
    """Return the text of `error` in one line of at most `most` characters, with its type where it says little."""
    text = " ".join(str(error).split())
    text = text if len(text) <= most else f"{text[: most - 3]}..."
    return text if " " in text else f"{type(error).__name__}: {text}"
