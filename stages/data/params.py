"""Section `data` of params.yaml, and the keys of other sections that the stage uses."""

from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, model_validator

from stages.common.params import Positive, Section, Seed, Share
from stages.data import abstracts
from stages.data.datasets import DATASETS
from stages.data.tasks import TASKS

HELD_OUT = [abstracts.NAME, *(name for name, dataset in DATASETS.items() if dataset.held_out)]
PUBLIC = ("hub", "mirror")
# What `auto` means: with a source of public datasets those of the thesis, else what needs no network.
AUTO_TASKS = {True: ["boolq", "hellaswag", "winogrande", "arc_challenge", "openbookqa"], False: list(TASKS)}
TASK_NAMES = f"{', '.join(TASKS)}, and of lm-eval's tasks, groups and tags"
AUTO_SETS = {True: ["wikitext2", "ptb"], False: [abstracts.NAME]}


def check_name(value: str) -> str:
    """Allow the names of datasets.py, and any organisation/name."""
    if value not in DATASETS and value.count("/") != 1:
        raise ValueError(f"is not allowed; expected one of: {', '.join(DATASETS)}, or organisation/name of a dataset")
    return value


dataset_name = AfterValidator(check_name)


def auto_or(names: list[str] | None, what: str) -> BeforeValidator:
    """Return a validator that allows `auto` and lists of different names, of `names` where they are given."""

    def check(value: Any) -> Any:
        listed = isinstance(value, list) and all(isinstance(name, str) and name for name in value)
        if value != "auto" and not (listed and (names is None or all(name in names for name in value))):
            raise ValueError(f"is not allowed; expected auto, or a list, empty for none, of {what}")
        return value if value == "auto" else list(dict.fromkeys(value))

    return BeforeValidator(check)


class FewShot(Section):
    """The key of section `evaluate` that says whether the splits of the tasks' few-shot examples are needed."""

    model_config = ConfigDict(extra="ignore")

    num_fewshot: Annotated[int, Field(ge=0)] | None


class TuneData(Section):
    """The key of section `tune` that says whether there must be instructions."""

    model_config = ConfigDict(extra="ignore")

    data: str


class DataParams(Section):
    """Where the text comes from, how it is split, and which tasks and sets are added."""

    source: Literal["installed", "python-docs", "files", "hub", "mirror"]
    path: str | None
    seed: Seed
    validation_share: Annotated[Share, Field(gt=0)]
    test_share: Annotated[Share, Field(gt=0)]
    tasks: Annotated[Literal["auto"] | list[str], auto_or(None, TASK_NAMES)]
    task_folder: Annotated[str, Field(min_length=1)] | None
    task_functions: bool
    questions: Positive
    perplexity: Annotated[Literal["auto"] | list[str], auto_or(HELD_OUT, ", ".join(HELD_OUT))]
    characters: Positive
    mirror: str | None
    missing: Literal["refuse", "skip"]
    revisions: dict[str, str]
    calibration: Annotated[str, dataset_name]
    instructions: Annotated[str, dataset_name]

    @property
    def task_names(self) -> list[str]:
        """The tasks by name."""
        return AUTO_TASKS[self.source in PUBLIC] if self.tasks == "auto" else list(self.tasks)

    @property
    def set_names(self) -> list[str]:
        """The perplexity sets by name, without the held-out part of the source's own text."""
        return AUTO_SETS[self.source in PUBLIC] if self.perplexity == "auto" else list(self.perplexity)

    @model_validator(mode="after")
    def check_places(self) -> Self:
        if self.source == "mirror" and not self.mirror:
            raise ValueError(f"mirror = {self.mirror!r}; expected a folder of Parquet files, since source = 'mirror'")
        if self.source == "files" and not self.path:
            raise ValueError(f"path = {self.path!r}; expected a file or folder of your text, since source = 'files'")
        return self

    @model_validator(mode="after")
    def check_sets(self) -> Self:
        if self.source in PUBLIC and not self.set_names:
            raise ValueError(
                f"perplexity = []; expected at least one set, since source = {self.source!r} has no held-out text"
            )
        return self

    @model_validator(mode="after")
    def check_shares(self) -> Self:
        total = self.validation_share + self.test_share
        if total >= 1:
            raise ValueError(
                f"validation_share + test_share = {total:g}; expected less than 1, since the rest is for training"
            )
        return self
