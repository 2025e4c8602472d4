"""cluster.yaml: where clusters are and what a variant gets there."""

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError

from stages.common.errors import UserError
from stages.common.params import Positive, Section, describe_all
from stages.common.yaml_file import check_values, read_yaml

FILE = Path("cluster.yaml")
Count = Annotated[int, Field(ge=0, lt=2**31)]
Text = Annotated[str, Field(min_length=1)]


class RaySettings(Section):
    """Section `ray`."""

    address: Text
    cpus: Positive
    gpus: Annotated[float, Field(ge=0, allow_inf_nan=False)]


class SlurmSettings(Section):
    """Section `slurm`."""

    partition: Text | None
    cpus: Positive
    gpus: Count
    minutes: Positive
    array: Positive
    options: dict[str, Any]


class ClusterSettings(Section):
    """The whole file."""

    git_remote: Text
    folder: Text
    python: Text | None
    retries: Count
    ray: RaySettings
    slurm: SlurmSettings


def load_settings() -> ClusterSettings:
    """Return what cluster.yaml says; UserError, one line, for what it may not hold."""
    try:
        content = read_yaml(FILE)
    except FileNotFoundError:
        raise UserError(f"{FILE} is missing; `git checkout HEAD -- {FILE}` brings the default back") from None
    check_values(str(FILE), content)
    try:
        return ClusterSettings.model_validate(content)
    except ValidationError as error:
        raise UserError(f"{FILE}: {describe_all('', ClusterSettings, error)}") from None
