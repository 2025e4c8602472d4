"""Section `evaluate` of params.yaml."""

from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field, field_validator, model_validator

from stages.common.params import Positive, Section, Seed


class EvaluateParams(Section):
    """What is measured, on how much data, in which batch sizes."""

    seed: Seed
    sequence_length: Annotated[int, Field(ge=2)]
    tokens: Positive | None
    tasks: Literal["all"] | list[str]
    limit: Positive | None
    num_fewshot: Annotated[int, Field(ge=0)] | None
    chat_template: bool
    batch_tokens: Positive
    prompts: list[Annotated[str, Field(min_length=1)]]
    new_tokens: Positive

    @field_validator("tasks", mode="before")
    @classmethod
    def check_tasks(cls, tasks: Any) -> Any:
        """Answer in one line where pydantic would report every member of the union."""
        names = isinstance(tasks, list) and all(isinstance(name, str) for name in tasks)
        if tasks != "all" and not names:
            raise ValueError("is not allowed; expected all, or a list of names from data/tasks")
        return tasks

    @model_validator(mode="after")
    def check_tokens(self) -> Self:
        """At least one window of every text is measured."""
        if self.tokens is not None and self.tokens < self.sequence_length:
            raise ValueError(
                f"tokens = {self.tokens} is less than a window; expected null, or at least sequence_length = "
                f"{self.sequence_length}"
            )
        return self


class TaskFunctions(Section):
    """The key of section `data` that says whether the user's own Python functions in task files may run."""

    model_config = ConfigDict(extra="ignore")

    task_functions: bool
