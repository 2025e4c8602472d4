"""Read an untrusted YAML file: return its content, or raise a one-line error."""

import stat
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML, YAMLError
from ruamel.yaml.events import AliasEvent, CollectionEndEvent, CollectionStartEvent, ScalarEvent

from stages.common.errors import UserError

MAX_BYTES = 10 * 2**20
MAX_DEPTH = 20
MAX_VALUES = 100_000  # with aliases written out: nine lines of them can stand for a billion values
MAX_CHARACTERS = 100_000


def read_yaml(path: Path) -> Any:
    """Return the content of a YAML file as DVC reads it, YAML 1.2: 1e-4 is a number, no is a string.

    Raises FileNotFoundError where there is no file, and UserError for what is no regular file, cannot be read, is not
    valid YAML or is beyond the limits above.
    """
    text = read_text(path)
    try:
        check_size(path, text)
        return YAML(typ="safe").load(text)
    except YAMLError as error:
        raise UserError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    except (ValueError, TypeError, RecursionError) as error:  # a date of month 13, a list as a key
        raise UserError(f"{path} is not valid YAML: {type(error).__name__}: {error}") from None


def read_text(path: Path) -> str:
    """Return the text of a regular file; errors as in `read_yaml`."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            kind = "a folder" if stat.S_ISDIR(status.st_mode) else "not a regular file"
            raise UserError(f"{path} is {kind}; expected a YAML file")
        if status.st_size > MAX_BYTES:
            raise UserError(f"{path} has {status.st_size:,} bytes; expected at most {MAX_BYTES:,}")
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not valid UTF-8 (byte {error.start:,}); save it as UTF-8") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None


def check_size(path: Path, text: str) -> None:
    """Raise UserError where the content would be nested too deep, refer to itself, or be too large."""
    sizes: dict[str, int] = {}  # values that each anchor stands for
    open_collections: list[tuple[str | None, int]] = []  # anchor and values so far
    for event in YAML(typ="safe").parse(text):
        anchor, size = getattr(event, "anchor", None), 1
        if isinstance(event, CollectionStartEvent):
            open_collections.append((anchor, 1))
            if len(open_collections) > MAX_DEPTH:
                raise UserError(f"{path} is nested too deeply; expected at most {MAX_DEPTH} levels")
            continue
        if isinstance(event, AliasEvent):
            if anchor in (name for name, _ in open_collections):
                raise UserError(
                    f"{path}: *{anchor} refers to a value that contains it; expected an alias of a finite value"
                )
            size = sizes.get(anchor or "", 1)
        elif isinstance(event, CollectionEndEvent):
            anchor, size = open_collections.pop()
        elif not isinstance(event, ScalarEvent):
            continue
        if anchor:
            sizes[anchor] = size
        if open_collections:
            name, before = open_collections[-1]
            open_collections[-1] = name, before + size
            if before + size > MAX_VALUES:
                raise UserError(f"{path} holds more than {MAX_VALUES:,} values with aliases expanded; expected fewer")


def check_values(source: str, content: Any, key: str = "") -> None:
    """Raise UserError, which starts with `source` and names the key, for a value that no file of params can hold."""
    if isinstance(content, dict):
        for name, value in content.items():
            check_values(source, name, f"{key}, a key" if key else "a key")
            check_values(source, value, f"{key}.{name}" if key else str(name))
    elif isinstance(content, list | tuple):
        for index, value in enumerate(content):
            check_values(source, value, f"{key}.{index}")
    elif isinstance(content, int) and not -(2**63) <= content < 2**63:
        raise UserError(f"{source}: {key} is a number of {content.bit_length()} bits; expected at most 63")
    elif isinstance(content, str):
        if len(content) > MAX_CHARACTERS:
            raise UserError(f"{source}: {key} has {len(content):,} characters; expected at most {MAX_CHARACTERS:,}")
        if any("\ud800" <= letter <= "\udfff" for letter in content):
            raise UserError(f"{source}: {key} contains an unpaired surrogate, which UTF-8 cannot encode")
