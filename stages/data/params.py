"""Section `data` of params.yaml, and what the stage reads of section `evaluate`."""

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, ConfigDict, Field, model_validator

from stages.common.params import Positive, Section, Seed, Share, one_of
from stages.data.datasets import DATASETS, STOCK, named

HELD_OUT = [name for name, dataset in DATASETS.items() if dataset.held_out]


def check_name(value: str) -> str:
    """Allow the names of datasets.py, and any organisation/name."""
    if value not in DATASETS and value.count("/") != 1:
        raise ValueError(f"is not allowed; allowed: {', '.join(DATASETS)}, or organisation/name of a dataset")
    return value


dataset_name = AfterValidator(check_name)


def at_least_one(names: list[str]) -> AfterValidator:
    """Return a validator that refuses an empty list of `names`, with which the evaluation would fail, much later."""

    def check(values: list[str]) -> list[str]:
        if not values:
            raise ValueError(f"is not allowed; allowed: at least one of {', '.join(names)}")
        return values

    return AfterValidator(check)


class FewShot(Section):
    """The key of section `evaluate` that says whether the tasks' training splits are needed."""

    model_config = ConfigDict(extra="ignore")

    num_fewshot: Annotated[int, Field(ge=0)]


class DataParams(Section):
    """Where the text comes from and how it is split."""

    source: Literal["python-docs", "hub", "mirror"]
    seed: Seed
    validation_share: Annotated[Share, Field(gt=0)]
    test_share: Annotated[Share, Field(gt=0)]
    questions: Annotated[int, Field(ge=500)]
    mirror: str | None
    missing: Literal["refuse", "skip"]
    revisions: dict[str, str]
    tasks: Annotated[list[Annotated[str, one_of(list(STOCK))]], at_least_one(list(STOCK))]
    perplexity: Annotated[list[Annotated[str, one_of(HELD_OUT)]], at_least_one(HELD_OUT)]
    calibration: Annotated[str, dataset_name]
    characters: Positive
    instructions: Annotated[str, dataset_name]

    @model_validator(mode="after")
    def check_mirror(self) -> Self:
        if self.source == "mirror" and not self.mirror:
            raise ValueError(f"mirror = {self.mirror!r}; allowed with source = 'mirror': a folder of parquet files")
        return self

    @model_validator(mode="after")
    def check_revisions(self) -> Self:
        known = {dataset.repo for dataset in DATASETS.values()} | {repo for _, repo, _ in STOCK.values()}
        known |= {named(self.calibration).repo, named(self.instructions).repo}
        for name, revision in self.revisions.items():
            if name not in known:
                allowed = ", ".join(sorted(known))
                raise ValueError(f"revisions.{name} = {revision!r} pins no dataset; allowed: {allowed}")
        return self

    @model_validator(mode="after")
    def check_shares(self) -> Self:
        total = self.validation_share + self.test_share
        if total >= 1:
            raise ValueError(f"validation_share + test_share = {total:g}; allowed: below 1, the rest is for training")
        return self
