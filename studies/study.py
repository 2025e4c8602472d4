"""A study, studies/<name>.yaml, and its variants."""

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from math import prod
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from stages.check.sections import check_params
from stages.common.errors import UserError
from stages.common.params import Section, describe_all, read_params_file
from stages.common.yaml_file import check_values, read_yaml
from stages.export.params import Format
from studies.settings import Settings, changed

Models = Annotated[list[Literal["pruned", "tuned"]], Field(min_length=1)]
Values = Annotated[list[Any], Field(min_length=1)]

# What a model does not depend on: a variant is named by the rest.
AFTERWARDS = ("export", "models", "report")
WITHOUT = {"base": ("prune", "tune", *AFTERWARDS), "pruned": ("tune", *AFTERWARDS), "tuned": AFTERWARDS}

MAX_VARIANTS, LABEL_CHARACTERS = 10_000, 100


class Point(Section):
    """A variant outside the grid: its own settings, and optionally its own list of models to evaluate."""

    set: Settings
    models: Models | None = None


class StudyFile(Section):
    """What studies/<name>.yaml may hold."""

    set: Settings = Field({})
    grid: dict[str, Values] = Field({})
    points: list[Point] = Field([])
    models: Models = Field(["pruned"])
    formats: list[Format] = Field([])
    seeds: dict[str, Annotated[list[int], Field(min_length=2)]] = Field({})

    @model_validator(mode="after")
    def something_varies(self):
        """There is at least one variant, and all seeds can be varied together."""
        if not self.grid and not self.points:
            raise ValueError("grid and points are both empty; expected at least one variant")
        if len({len(values) for values in self.seeds.values()}) > 1:
            raise ValueError(
                "seeds has lists of different lengths; expected lists of one length, since they vary together"
            )
        repetitions = len(next(iter(self.seeds.values()), [None]))
        variants = (prod(map(len, self.grid.values())) * bool(self.grid) + len(self.points)) * repetitions
        if variants > MAX_VARIANTS:
            raise ValueError(f"grid, points and seeds make {variants:,} variants; expected at most {MAX_VARIANTS:,}")
        return self


@dataclass(frozen=True)
class Variant:
    """One experiment of a study."""

    study: str
    varied: Settings  # what distinguishes it from the others, seeds left out
    seeds: Settings
    settings: Settings  # all that differs from params.yaml, those two included
    models: tuple[str, ...]  # of base, pruned, tuned
    formats: tuple[str, ...]  # in which the last of them is exported, evaluated and profiled too
    params: dict[str, Any]  # the whole params.yaml that it runs with

    @property
    def label(self) -> str:
        """What a person calls it: taylor-0.3-tuned."""
        words = [slug(value) for value in self.varied.values()]
        words += [f"{key.split('.')[-1]}{slug(value)}" for key, value in self.seeds.items()]
        words += [model for model in self.models if model == "tuned"]
        return "-".join([*words, *self.formats])[:LABEL_CHARACTERS].strip("-.") or self.models[-1]

    @property
    def name(self) -> str:
        """The experiment's name: equal for equal params and models, independent of the study file's layout."""
        return f"{slug(self.study)[:LABEL_CHARACTERS] or 'study'}-{self.label}-{self.key(self.models[-1])[:7]}"

    @property
    def targets(self) -> list[str]:
        """The DVC stages that measure it."""
        models = [*self.models, *self.compared[1:]]
        return [f"{stage}@{model}" for stage in ("evaluate", "profile") for model in models]

    @property
    def compared(self) -> list[str]:
        """What of it is compared with the base: its last model, and that in every format."""
        return [self.models[-1], *(f"{self.models[-1]}-{each}" for each in self.formats)]

    def key(self, model: str) -> str:
        """Return a hash of the params that `model` depends on, its measurements included."""
        relevant = {section: keys for section, keys in self.params.items() if section not in WITHOUT[model]}
        return hashlib.sha256(json.dumps(relevant, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Study:
    """A study's name and its variants; those that others start from come first."""

    name: str
    bases: list[Variant]
    variants: list[Variant]

    @property
    def experiments(self) -> list[Variant]:
        """All that is to be run."""
        return self.bases + self.variants

    def base(self, variant: Variant) -> Variant:
        """Return the base that the variant prunes."""
        return next(base for base in self.bases if base.key("base") == variant.key("base"))

    def needs(self, variant: Variant) -> Variant | None:
        """Return the experiment to start from, which made all but the last model, or the base."""
        if variant.models == ("base",):
            return None
        same = self.pruned.get(variant.key("pruned"), variant)
        return self.base(variant) if same == variant else same

    @cached_property
    def pruned(self) -> dict[str, Variant]:
        """The variants whose last model is the pruned one, by its key; the first of those with the same."""
        return {each.key("pruned"): each for each in reversed(self.variants) if each.models[-1] == "pruned"}


def load_study(path: Path) -> Study:
    """Return the study in `path`; UserError is one line that names the key, the value and what is expected."""
    params, file = read_params_file(), read_study_file(path)
    variants: dict[str, Variant] = {}
    for varied, models in varied_settings(file):
        for seeds in seed_settings(file):
            settings = {**file.set, **varied, **seeds, **export_settings(models[-1], file.formats)}
            params_of_variant = changed(params, settings, path)
            variant = Variant(
                path.stem, varied, seeds, settings, ("base", *models), tuple(file.formats), params_of_variant
            )
            check(variant, path)
            if variant.name in variants:
                raise UserError(f"{path}: variant {variant.label} appears twice; expected once, in grid or points")
            variants[variant.name] = variant
    bases = {variant.key("base"): base_of(variant) for variant in variants.values()}
    return Study(path.stem, list(bases.values()), list(variants.values()))


def check(variant: Variant, path: Path) -> None:
    """Raise UserError, one line that begins with the file and the variant, where its params are not allowed."""
    place = f"{path}, variant {variant.label}"
    try:
        check_params(variant.params, place)
    except UserError as error:
        raise UserError(f"{place}: {str(error).removeprefix(f'{place}: ')}") from None


def read_study_file(path: Path) -> StudyFile:
    """Return the file's content; UserError if it is missing or invalid."""
    try:
        content = read_yaml(path)
    except FileNotFoundError:
        known = ", ".join(str(file) for file in sorted(Path("studies").glob("*.yaml")))
        raise UserError(f"{path} is missing; expected {f'one of: {known}' if known else 'a study file'}") from None
    check_values(str(path), content)
    try:
        return StudyFile.model_validate(content)
    except ValidationError as error:
        raise UserError(f"{path}: {describe_all('', StudyFile, error)}") from None


def varied_settings(file: StudyFile) -> Iterator[tuple[Settings, list[str]]]:
    """Yield the settings that distinguish the variants, without seeds, and the models to evaluate of each."""
    if file.grid:
        for values in product(*file.grid.values()):
            yield dict(zip(file.grid, values, strict=True)), in_order(file.models)
    for point in file.points:
        yield point.set, in_order(point.models or file.models)


def in_order(models: Sequence[str]) -> list[str]:
    """Return the models left to right; a tuned one is compared with the pruned one it was made from."""
    return ["pruned", "tuned"] if "tuned" in models else ["pruned"]


def seed_settings(file: StudyFile) -> Iterator[Settings]:
    """Yield the settings of every repetition; one without settings where there are no seeds."""
    for values in zip(*file.seeds.values(), strict=True) if file.seeds else [()]:
        yield dict(zip(file.seeds, values, strict=True))


def export_settings(model: str, formats: list[Format]) -> Settings:
    """Return the settings that export `model` in `formats` and have each export evaluated and profiled as its own."""
    if not formats:
        return {}
    names = [f"{model}-{each}" for each in formats]
    folders = {f"models.{name}": f"models/export/{name}" for name in names}
    return {"export.models": [model], "export.formats": formats, **folders}


def base_of(variant: Variant) -> Variant:
    """Return the variant that measures the base alone."""
    shared = {key: value for key, value in variant.settings.items() if key.split(".")[0] not in WITHOUT["base"]}
    return Variant(variant.study, {}, {}, shared, ("base",), (), variant.params)


def slug(value: Any) -> str:
    """Return a value as a part of a Git reference's name."""
    text = "-".join(map(slug, value)) if isinstance(value, list) else str(value)[:LABEL_CHARACTERS].lower()
    text = "".join(letter if letter.isalnum() or letter in "._" else "-" for letter in text)
    return re.sub(r"([-.])[-.]*\1", r"\1", text).strip("-.")
