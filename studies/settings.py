"""Set dotted keys of params.yaml, in memory and in the file."""

from copy import deepcopy
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.scalarstring import DoubleQuotedScalarString

from stages.common.errors import UserError
from stages.common.outputs import staged
from stages.common.params import read_params_file

Settings = dict[str, Any]


def changed(params: dict[str, Any], settings: Settings, source: Path) -> dict[str, Any]:
    """Return `params` with the dotted keys of `settings` changed; UserError for a key that it does not have."""
    result = deepcopy(params)
    for key, value in settings.items():
        *parents, last = key.split(".")
        place = result
        for parent in parents:
            place = place.get(parent, {}) if isinstance(place, dict) else {}
        if not isinstance(place, dict) or (last not in place and parents != ["models"]):
            beside = ", ".join(place) if isinstance(place, dict) and place else ", ".join(params)
            raise UserError(f"{source}: {key[:100]} is not a key of params.yaml; expected one of: {beside}")
        place[last] = value
    return result


def write_settings(path: Path, settings: Settings) -> None:
    """Change keys of a params.yaml, and keep the rest of the file, including comments.

    `dvc exp run -S` would read text as code: ${...} in any value of the file, and quotes and brackets in its own.
    Raises UserError where the file does not then hold exactly the settings.
    """
    expected = changed(read_params_file(path), settings, path)
    yaml = YAML()
    yaml.width = 2**31 - 1  # a text stays on its line
    content = changed(yaml.load(path), {key: quoted(value) for key, value in settings.items()}, path)
    with staged(path) as file:
        yaml.dump(content, file)
    if read_params_file(path) != expected:
        raise UserError(f"{path}: YAML cannot hold one of {', '.join(settings)}; choose values of plain text")


def quoted(value: Any) -> Any:
    """Return a value whose texts YAML writes in double quotes, where every character can be escaped."""
    if isinstance(value, dict):
        return {quoted(key): quoted(each) for key, each in value.items()}
    if isinstance(value, list):
        return [quoted(each) for each in value]
    return DoubleQuotedScalarString(value) if isinstance(value, str) and not value.isidentifier() else value
