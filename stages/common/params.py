"""Read one section of params.yaml into its typed model.

Each stage keeps the model of its own section in `stages/<stage>/params.py`; `stages/check` reads them all before any
other stage runs.
"""

import re
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from stages.common.errors import UserError, shown
from stages.common.yaml_file import read_yaml

PARAMS_FILE = Path("params.yaml")
FOLDERS = {"base": Path("models/base"), "pruned": Path("models/pruned"), "tuned": Path("models/merged")}
MOST_ERRORS = 10


class Section(BaseModel):
    """A section of params.yaml: every key required, none unknown, no silent conversion of types."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


SectionT = TypeVar("SectionT", bound=Section)

Share = Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)]
Positive = Annotated[int, Field(ge=1, lt=2**31)]
Rate = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]


def one_of(names: list[str]) -> AfterValidator:
    """Return a validator that allows the values `names`, for names that are files of a folder."""

    def check(value: str) -> str:
        if value not in names:
            raise ValueError(f"is not allowed; expected one of: {', '.join(names)}")
        return value

    return AfterValidator(check)


class RunParams(Section):
    """Section `run`: how every stage computes."""

    device: Literal["auto", "cpu", "cuda"]
    threads: Annotated[int, Field(ge=1, le=1024)]
    precision: Literal["auto", "float32", "bfloat16"]
    processes: Literal["auto"] | Annotated[int, Field(ge=1, le=1024)]
    sharded: bool

    @field_validator("processes", mode="before")
    @classmethod
    def check_processes(cls, value: object) -> object:
        """Answer in one line where pydantic would report every member of the union."""
        if value != "auto" and not (type(value) is int and 1 <= value <= 1024):
            raise ValueError("is not allowed; expected auto, or 1 to 1024")
        return value

    @model_validator(mode="after")
    def shares_are_held_by_several(self):
        """A single process has nobody to share the weights with."""
        if self.sharded and self.processes == 1:
            raise ValueError("sharded = true is not allowed with processes = 1; expected auto, or 2 to 1024")
        return self


class ModelsParams(Section):
    """Section `models`: the folders of further models to evaluate and profile, by the names they get.

    dvc.yaml puts base, pruned and tuned beside them.
    """

    model_config = ConfigDict(extra="allow")

    __pydantic_extra__: dict[str, Annotated[str, Field(min_length=1)]]

    @model_validator(mode="after")
    def names_of_files(self):
        """A name is part of file names and of DVC's stage names."""
        for name in self.folders:
            if not re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,99}", name) or name in FOLDERS:
                raise ValueError(
                    f"{name[:100]} is not allowed; expected lower-case letters, digits, _ and -, at most 100, "
                    f"and none of {', '.join(FOLDERS)}"
                )
        return self

    @property
    def folders(self) -> dict[str, str]:
        """Folder by name."""
        return dict(self.__pydantic_extra__ or {})


def name_of(stage: str) -> str:
    """Return the model's name from a stage's argument: the name itself, or the part after @ in `profile@pruned`."""
    return stage.rpartition("@")[2]


def folder_of(name: str) -> Path:
    """Return the folder of base, pruned, tuned or a model of section `models`; UserError for any other name.

    dvc.yaml hands over the name alone: a folder written into its command would be read by a shell.
    """
    if name in FOLDERS:
        return FOLDERS[name]
    further = load_section("models", ModelsParams).folders
    if name not in further:
        raise UserError(f"{shown(name)} is not a model; expected one of: {', '.join([*FOLDERS, *further])}")
    return Path(further[name])


def read_params_file(path: Path = PARAMS_FILE) -> dict:
    """Return params.yaml as a dict; UserError if it is missing or not a mapping."""
    try:
        content = read_yaml(path)
    except FileNotFoundError:
        raise UserError(f"{path} is missing; run from the project's root") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} must be a mapping of sections, found {type(content).__name__}")
    return content


def load_section(name: str, model: type[SectionT], path: Path = PARAMS_FILE) -> SectionT:
    """Return section `name` of params.yaml as `model`; UserError names the key, the value and what is expected."""
    return validate_section(read_params_file(path), name, model, str(path))


def validate_section(content: dict, name: str, model: type[SectionT], source: str) -> SectionT:
    """Return section `name` of `content` as `model`; UserError, which starts with `source`, if it is invalid."""
    if name not in content:
        raise UserError(f"{source}: section `{name}` is missing; expected its keys: {', '.join(model.model_fields)}")
    try:
        return model.model_validate(content[name])
    except ValidationError as error:
        raise UserError(f"{source}: {describe_all(name, model, error)}") from None


def describe_all(section: str, model: type[Section], error: ValidationError) -> str:
    """Return the first validation errors, and how many more there are."""
    errors = error.errors()
    more = [f"{len(errors) - MOST_ERRORS} more"] if len(errors) > MOST_ERRORS else []
    return "; ".join([*(describe(section, model, each) for each in errors[:MOST_ERRORS]), *more])


def describe(section: str, model: type[Section], error) -> str:
    """Return one validation error as `key = value is not allowed; expected ...`."""
    parts = [section, *(str(part)[:100] for part in error["loc"])]
    key = ".".join(part for part in parts if part) or "the content"
    if error["type"] == "missing":
        return f"{key} is missing"
    if error["type"] == "extra_forbidden":
        return f"{key} is not a known key; expected one of: {', '.join(keys_beside(model, error['loc']))}"
    message = re.sub(r"^Value error, |^Input should be | or instance of \w+$", "", error["msg"])
    if error["type"] == "value_error":
        return f"{key}: {message}" if isinstance(error["input"], dict) else f"{key} = {shown(error['input'])} {message}"
    message = f"a value {message}" if message.startswith(("less", "greater")) else message
    return f"{key} = {shown(error['input'])} is not allowed; expected {message}"


def keys_beside(model: type[Section], location: tuple) -> list[str]:
    """Return the keys that the section, or the nested section at `location`, does have."""
    for part in location[:-1]:
        nested = model.model_fields[part].annotation if part in model.model_fields else None
        if not (isinstance(nested, type) and issubclass(nested, Section)):
            break
        model = nested
    return list(model.model_fields)
